"""The routes, asked without a socket: what each answers, and with which status it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime import Portfolio
from onnx_shift.serving.app import App
from onnx_shift.serving.service import Service
from onnx_shift.serving.settings import Limits
from tests.serving.conftest import NAME, WIDTHS, Reply, call, question, write_portfolio

Make = Callable[..., Service]
Answers = dict[str, np.ndarray]
MODEL = f"/v2/models/{NAME}"


def infer(app: App, content: Any, path: str = f"{MODEL}/infer", headers: dict[str, str] | None = None) -> Reply:
    return call(app, "POST", path, content if isinstance(content, bytes) else json.dumps(content).encode(), headers)


def logits(reply: Reply) -> np.ndarray:
    assert reply.status == 200, reply.body
    (output,) = reply.json["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_an_answer_names_the_variant_that_gave_it(make_service: Make, rows: np.ndarray, answers: Answers) -> None:
    service = make_service()
    app = App(service)
    for name in WIDTHS:
        service.switcher.switch(name)
        reply = infer(app, question(rows))
        assert reply.variant == name and reply.json["model_version"] == name
        np.testing.assert_allclose(logits(reply), answers[name], rtol=1e-5)


def test_a_request_may_name_a_variant_whichever_serves(make_service: Make, rows: np.ndarray, answers: Answers) -> None:
    service = make_service()
    app = App(service)
    for name in ("large", "small", "large", "medium"):
        reply = infer(app, question(rows), f"{MODEL}/versions/{name}/infer")
        assert reply.variant == name and service.switcher.active.name == "medium"
        np.testing.assert_allclose(logits(reply), answers[name], rtol=1e-5)


def test_the_model_and_the_server_describe_themselves(make_service: Make) -> None:
    app = App(make_service())
    assert call(app, "GET", "/v2").json["extensions"] == ["binary_tensor_data"]
    described = {
        "name": NAME, "versions": ["small", "medium", "large"], "platform": "onnxruntime_onnx",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 6]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}],
    }  # fmt: skip
    for path in (MODEL, f"{MODEL}/versions/small"):
        assert call(app, "GET", path).json == described
        assert call(app, "GET", f"{path}/ready").json == {"name": NAME, "ready": True}
    assert call(app, "GET", "/v2/health/live").status == call(app, "GET", "/v2/health/ready").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", f"{MODEL}/versions/tiny", 404),
        ("POST", f"{MODEL}/versions/tiny/infer", 404),
        ("GET", f"{MODEL}/infer", 405),
        ("DELETE", "/v2/health/live", 405),
        ("POST", f"/v2/repository/models/{NAME}/load", 404),
    ],
)
def test_what_is_not_there_is_refused_in_json(make_service: Make, method: str, path: str, status: int) -> None:
    reply = call(App(make_service()), method, path, b"{}")
    assert reply.status == status and isinstance(reply.json["error"], str)


def test_a_malformed_request_is_400_and_counted(make_service: Make, rows: np.ndarray) -> None:
    app = App(make_service())
    for content in (b"{", question(rows, datatype="INT8"), question(rows, shape=[2, 7])):
        assert infer(app, content).status == 400
    assert infer(app, question(rows), headers={"Inference-Header-Content-Length": "x"}).status == 400
    assert b'onnx_shift_http_requests_total{status="400",variant=""} 4.0' in call(app, "GET", "/metrics").body


def test_a_body_or_a_batch_above_its_limit_is_413(make_service: Make, rows: np.ndarray) -> None:
    app = App(make_service(limits=Limits(body_bytes=500, batch=1)))
    assert infer(app, question(rows)).status == 413
    stated = infer(app, question(rows[:1]), headers={"content-length": "501"})
    assert (stated.status, stated.headers["connection"]) == (413, "close")
    assert infer(app, b" " * 501).json["error"] == "a body of more than 500 bytes, the limit"


def test_a_compressed_body_is_415(make_service: Make, rows: np.ndarray) -> None:
    assert infer(App(make_service()), question(rows), headers={"content-encoding": "gzip"}).status == 415


def test_draining_is_not_ready_and_then_takes_no_requests(make_service: Make, rows: np.ndarray) -> None:
    app = App(make_service())
    app.draining.began = True
    assert call(app, "GET", "/v2/health/ready").status == call(app, "GET", f"{MODEL}/ready").status == 503
    assert call(app, "GET", "/v2/health/live").status == infer(app, question(rows)).status == 200
    app.draining.closed = True
    assert infer(app, question(rows)).status == 503


def test_load_takes_the_new_file_and_never_a_path(
    make_service: Make, portfolio_path: Path, rows: np.ndarray, answers: Answers
) -> None:
    app = App(make_service(allow_load=True))
    load = f"/v2/repository/models/{NAME}/load"
    before = call(app, "POST", load).json["sha256"]
    write_portfolio(portfolio_path, {"only": WIDTHS["large"]})
    assert call(app, "POST", load, b'{"parameters": {"path": "/etc/passwd"}}').status == 400
    assert call(app, "POST", "/v2/repository/models/other/load").status == 404
    after = call(app, "POST", load).json["sha256"]
    assert after != before
    reply = infer(app, question(rows))
    assert reply.variant == "only"
    np.testing.assert_allclose(logits(reply), answers["large"], rtol=1e-5)
    metrics = call(app, "GET", "/metrics").body.decode()
    assert 'onnx_shift_loads_total{result="taken"} 1.0' in metrics
    assert f'onnx_shift_portfolio_info{{sha256="{after}"}} 1.0' in metrics
    assert 'onnx_shift_switches_by_reason_total{reason="update"} 1.0' in metrics


@pytest.mark.parametrize("bad", ["damaged", "another model", "gone"])
def test_a_bad_portfolio_is_refused_and_the_old_one_serves(
    make_service: Make, portfolio_path: Path, rows: np.ndarray, bad: str
) -> None:
    app = App(make_service(allow_load=True))
    if bad == "damaged":
        portfolio_path.write_bytes(portfolio_path.read_bytes()[:-100])
    elif bad == "another model":
        write_portfolio(portfolio_path, inputs="image")
    else:
        portfolio_path.unlink()
    reply = call(app, "POST", f"/v2/repository/models/{NAME}/load")
    assert reply.status == 400 and portfolio_path.name in reply.json["error"]
    for name in (*WIDTHS, "medium"):
        assert infer(app, question(rows), f"{MODEL}/versions/{name}/infer").status == 200
    assert b'onnx_shift_loads_total{result="refused"} 1.0' in call(app, "GET", "/metrics").body


def test_metrics_name_the_active_variant_and_what_switched(make_service: Make, rows: np.ndarray) -> None:
    service = make_service()
    app = App(service)
    infer(app, question(rows))
    service.switcher.switch("large")
    text = call(app, "GET", "/metrics").body.decode()
    assert 'onnx_shift_active_variant{variant="large"} 1.0' in text and 'variant="medium"} 1.0' in text
    assert 'onnx_shift_switches_by_reason_total{reason="call"} 1.0' in text
    assert "onnx_shift_http_request_seconds_count 1.0" in text and "onnx_shift_queue_seconds_count 1.0" in text
    assert 'onnx_shift_active_variant{variant="medium"} 0.0' in text and "onnx_shift_switches_total 1.0" in text


def test_a_defect_of_ours_is_500_in_json_and_logged(
    make_service: Make, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service()
    monkeypatch.setattr(service.switcher, "run_named", lambda *given: 1 / 0)
    reply = infer(App(service), question(rows))
    assert reply.status == 500 and "internal error" in reply.json["error"]
    assert "ZeroDivisionError" in caplog.text


def test_batching_is_refused_for_a_model_of_fixed_batch(make_service: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Portfolio.open

    def fixed(path: Path, **options: Any) -> Portfolio:
        portfolio = opened(path, **options)
        portfolio.inputs[0].shape[0] = 1
        return portfolio

    monkeypatch.setattr(Portfolio, "open", fixed)
    with pytest.raises(OnnxShiftError, match="no free first dimension"):
        make_service(batch_ms=1)
