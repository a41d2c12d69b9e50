"""Weights outside the model file stay there until they are written, one at a time."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import PruneError, prune
from onnx_shift.onnx_pruner.graph import external, network
from onnx_shift.onnx_pruner.graph.reading import read_model
from onnx_shift.onnx_pruner.verification.compare import compare
from tests.onnx_pruner.models import model


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(external, "SMALLEST_MAPPED_BYTES", 0)
    monkeypatch.setattr(network, "LARGE_BYTES", 0)  # what is mapped is hidden from shape inference
    path = tmp_path / "outside.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_large_weights_are_mapped_and_pruned_as_if_read(outside: Path) -> None:
    source = read_model(outside, lazily=True)
    assert set(source.mapped.arrays) == {"w1", "w2"}
    assert not source.model.graph.initializer[0].raw_data
    assert source.complete().graph.initializer[0].raw_data == model().graph.initializer[0].raw_data
    result = prune(outside, align=1)
    assert (result.report.verified, result.report.external_data, result.report.channels_removed) == (True, True, 1)
    assert [t.raw_data for t in result.model.graph.initializer] == [
        t.raw_data for t in prune(model(), align=1).model.graph.initializer
    ]


def test_a_model_with_nothing_to_remove_holds_its_weights(outside: Path) -> None:
    dense = model(dead=())
    onnx.save(dense, outside, save_as_external_data=True, location="dense.bin", size_threshold=0)
    result = prune(outside)
    assert result.report.unchanged
    result.save(outside.with_name("copy.onnx"))
    assert compare(outside, outside.with_name("copy.onnx")).largest_difference == 0
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(result.model.graph.initializer[0]),
        onnx.numpy_helper.to_array(model(dead=()).graph.initializer[0]),
    )


def test_a_file_that_is_too_short_or_elsewhere_is_not_mapped_but_refused(outside: Path) -> None:
    weights = outside.with_name("weights.bin")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(PruneError, match=r"outside\.onnx: external data of 'w[12]' cannot be read"):
        prune(outside)
    skeleton = onnx.load(outside, load_external_data=False)
    for tensor in skeleton.graph.initializer:
        tensor.external_data[0].value = "../elsewhere.bin"
    assert not external.map_weights(skeleton, outside.parent).arrays


def test_released_memory_is_read_again(outside: Path) -> None:
    mapped = read_model(outside, lazily=True).mapped
    before = mapped.arrays["w2"].copy()
    mapped.release()
    np.testing.assert_array_equal(mapped.arrays["w2"], before)
