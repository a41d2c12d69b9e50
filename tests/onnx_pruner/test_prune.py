"""The whole of it on extreme models."""

import numpy as np
import onnx
import onnx.parser
import pytest

from onnx_shift.claims import claimed_accuracy, renew_claim
from onnx_shift.onnx_pruner import PruneError, prune
from tests.onnx_pruner.models import model


def test_nan_and_infinite_weights_are_kept() -> None:
    strange = model()
    w1 = onnx.numpy_helper.to_array(strange.graph.initializer[0]).copy()
    w1[3] = np.nan
    w1[4, 0, 0, 0] = np.inf
    strange.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(w1, "w1"))
    result = prune(strange, align=1, verify=False)
    assert result.report.layers[0].after == (7, 3, 3, 3)


def test_all_zero_model_is_one_channel() -> None:
    result = prune(model(dead=tuple(range(8))), align=1)
    assert result.report.layers[0].after == (1, 3, 3, 3)
    assert result.report.layers[1].after == (4, 1, 1, 1)
    assert any("depend" in note for note in result.report.notes)


def test_align_below_one() -> None:
    with pytest.raises(PruneError, match="align=0: must be 1 or more"):
        prune(model(), align=0)


def test_a_network_of_a_thousand_layers_is_pruned() -> None:
    layers = "".join(f"r{index + 1} = Relu (r{index}) " for index in range(1200))
    deep = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> deep (float[1,3,8,8] x) => (float[1,4,8,8] y)'
        f"{{ r0 = Conv (x, w) {layers} i = Identity (r1200) y = Relu (i) }}"
    )
    deep.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w"))
    assert prune(deep, verify=False).report.parameters_after == 12


def test_a_verified_prune_keeps_the_accuracy_and_an_unverified_one_loses_it() -> None:
    claims = model(dead=(2, 3, 4, 5))
    onnx.helper.set_model_props(claims, {"onnx_shift.accuracy": "0.875"})
    renew_claim(claims)
    assert claimed_accuracy(prune(claims, align=1).model) == 0.875
    assert claimed_accuracy(prune(claims, align=1, verify=False).model) is None
    claims.graph.initializer[0].raw_data = bytes(4) + claims.graph.initializer[0].raw_data[4:]
    assert claimed_accuracy(prune(claims, align=1).model) is None  # it was stale before
