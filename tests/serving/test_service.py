"""What answers requests: shared runs, requests that spoil them, and other files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_shift.errors import OnnxShiftError
from onnx_shift.portfolio.pack import pack
from onnx_shift.serving.errors import RequestError
from onnx_shift.serving.service import Asked, Service, open_portfolio
from onnx_shift.serving.settings import Limits, Settings
from tests.serving.conftest import NAME, question, write_portfolio

Make = Callable[..., Service]


def body(rows: np.ndarray, **changes: Any) -> Asked:
    return Asked(json.dumps(question(rows, **changes)).encode(), None, None)


def test_requests_of_a_batch_get_their_own_rows(
    make_service: Make, rows: np.ndarray, answers: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(limits=Limits(batch=3), batch_ms=1)
    ran: list[int] = []
    run = service.switcher.run_named

    def spy(outputs: Any, feed: Any) -> Any:
        ran.append(len(feed["input"]))
        return run(outputs, feed)

    monkeypatch.setattr(service.switcher, "run_named", spy)
    bad = body(rows, datatype="INT8")
    results = service.answer([body(rows[:1]), bad, body(rows), body(rows[1:])])
    assert ran == [3, 1] and isinstance(results[1], RequestError)
    for result, wanted in zip(results[:1] + results[2:], (slice(0, 1), slice(0, 2), slice(1, 2)), strict=True):
        output = json.loads(result.body)["outputs"][0]
        found = np.array(output["data"], np.float32).reshape(output["shape"])
        np.testing.assert_allclose(found, answers["medium"][wanted], rtol=1e-5)


def test_one_that_the_model_refuses_does_not_spoil_the_others(
    make_service: Make, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(batch_ms=1)
    run = service.switcher.run_named

    def refuse_twos(outputs: Any, feed: Any) -> Any:
        return run(outputs, {"input": feed["input"][:, :5]} if len(feed["input"]) > 1 else feed)

    monkeypatch.setattr(service.switcher, "run_named", refuse_twos)
    results = service.answer([body(rows[:1]), body(rows)])
    assert not isinstance(results[0], Exception)
    assert isinstance(results[1], RequestError) and results[1].status == 400


def test_an_update_may_come_from_another_file(make_service: Make, portfolio_path: Path, tmp_path: Path) -> None:
    service = make_service()
    before = service.update()
    write_portfolio(tmp_path / "other.zip", {"only": 5})
    after = service.update(tmp_path / "other.zip")
    assert after != before and service.switcher.active.name == "only"
    portfolio_path.unlink()
    assert service.update() == after


def test_a_file_that_changes_while_it_is_read_is_refused(portfolio_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_shift.serving import service

    opened = service.Portfolio.open

    def change(path: Path, **options: Any) -> Any:
        found = opened(path, **options)
        write_portfolio(path, {"only": 5})
        return found

    monkeypatch.setattr(service.Portfolio, "open", change)
    with pytest.raises(OnnxShiftError, match="changed while it was read"):
        open_portfolio(portfolio_path, None)


def test_only_what_the_trusted_key_signed_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives import serialization as s

    monkeypatch.setenv("ONNX_SHIFT_CACHE", str(tmp_path / "cache"))
    ours, others = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
    public, path = tmp_path / "public.pem", tmp_path / f"{NAME}.zip"
    public.write_bytes(ours.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))

    def write(name: str, key: Any) -> bytes:
        pem = key and key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        write_portfolio(path, {name: 3}, sign=pem)
        return path.read_bytes()

    write("first", ours)
    service = Service(Settings(path, NAME, trusted=public))
    whole = bytearray(write("second", ours))
    service.update()
    assert service.switcher.active.name == "second"
    whole[len(whole) // 2] ^= 1
    for change, message in (
        (lambda: write("third", others), "its signature does not fit"),
        (lambda: write("third", None), "it is not signed"),
        (lambda: path.write_bytes(whole), "its signature does not fit"),
    ):
        change()
        with pytest.raises(OnnxShiftError, match=f"{NAME}.zip: {message}"):
            service.update()
        assert service.switcher.active.name == "second"
    service.close(5)


def test_a_model_of_strings_halves_and_flags_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SHIFT_CACHE", str(tmp_path / "cache"))
    types = {"text": TensorProto.STRING, "half": TensorProto.FLOAT16, "flag": TensorProto.BOOL}
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}-out"]) for name in types],
        "types",
        *(
            [helper.make_tensor_value_info(f"{name}{end}", type_, ["N"]) for name, type_ in types.items()]
            for end in ("", "-out")
        ),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "types.onnx")
    pack([tmp_path / "types.onnx"], tmp_path / "types.zip")
    service = Service(Settings(tmp_path / "types.zip", "types"))
    given = [("text", "BYTES", ["é"]), ("half", "FP16", [0.5]), ("flag", "BOOL", [True])]
    inputs = [{"name": name, "datatype": type_, "shape": [1], "data": data} for name, type_, data in given]
    (answered,) = service.answer([Asked(json.dumps({"inputs": inputs}).encode(), None, None)])
    service.close(5)
    assert [output["data"] for output in json.loads(answered.body)["outputs"]] == [["é"], [0.5], [True]]
