import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner.engines import engine
from onnx_shift.onnx_pruner.engines.engine import Array, CannotRunError, MissingEngineError, Run, Shapes
from tests.networks import network


def test_a_runtime_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ENGINES", {"abacus": {"abacus": "no_such_module"}})
    with pytest.raises(MissingEngineError, match=r"'abacus' is not installed; install the extra onnx-shift\[abacus\]"):
        engine.open_model("abacus", Path("a.onnx"), Path())


def test_a_converter_that_makes_nothing_tells_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such operator')"]
    with pytest.raises(CannotRunError, match=r"not converted \(exit status 1: no such operator\)"):
        engine.convert(command, tmp_path, "model.bin")


def test_batches_are_asked_image_by_image_and_a_shape_is_opened_once(tmp_path: Path) -> None:
    onnx.save(network(8), tmp_path / "a.onnx")
    started: list[Shapes] = []

    def start(shapes: Shapes) -> Run:
        started.append(shapes)

        def one(feeds: Mapping[str, Array]) -> list[Array]:
            assert feeds["input"].shape == shapes["input"]
            return [2 * feeds["input"]]

        return one

    run = engine.image_by_image(tmp_path / "a.onnx", start)
    batch = np.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    np.testing.assert_array_equal(run({"input": batch})[0], 2 * batch)
    run({"input": batch[:1]})
    assert started == [{"input": (1, 3, 8, 8)}]


def test_a_fixed_batch_of_several_is_refused(tmp_path: Path) -> None:
    model = network(8)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(CannotRunError, match="input 'input' is no batch that may hold one image"):
        engine.image_by_image(tmp_path / "a.onnx", lambda shapes: lambda feeds: [])


def test_what_c_code_prints_stays_out_of_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with engine.silenced():
        os.write(1, b"chatter")
    os.write(1, b"result")
    assert capfd.readouterr().out == "result"
