"""Why a channel stayed although it is zero."""

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import prune
from tests.onnx_pruner.conftest import Exact, weight


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Conv<pads = [1,1,1,1]>(x, w)", "it is a graph output"),
        ("a = Conv(x, w)\n y = Softmax<axis = 1>(a)", "read by Softmax 'y' (Softmax along the channels)"),
    ],
)
def test_the_reader_that_needs_a_zero_channel_is_named(exact: Exact, body: str, reason: str) -> None:
    text = f"g (float[N,3,4,4] x) => (float[N,8,H,W] y) {{ {body} }}"
    pruned = exact(text, {"w": weight(8, 3, 3, 3, dead=(2, 5))})
    assert [(kept.channels, kept.reason) for kept in pruned.report.kept] == [((2, 5), reason)]


def inner(operator: str, weights: str = "w") -> onnx.ModelProto:
    text = f"""<ir_version: 9, opset_import: ["" : 17, "acme" : 1]> g (float[N,4] x, bool b) => (float[N,4] y) {{
        h = If (b) <then_branch = t () => (float[N,4] a) {{ a = MatMul(x, w) }},
                    else_branch = e () => (float[N,4] c) {{ c = Identity(x) }}>
        z = {operator}(h, {weights})
        y = Identity(z)
    }}"""
    model = onnx.parser.parse_model(text)
    arrays = {"w": weight(4, 4), "q": np.ones((4, 4), np.uint8), "v": weight(4, 8)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def test_layers_that_were_not_looked_at_are_counted_and_named() -> None:
    report = prune(inner("acme.Mix", "v"), verify=False).report
    found = {(one.reason, one.layers, one.parameters) for one in report.left_out}
    assert ("Mix is of the domain 'acme', not of the standard", ("z",), 32) in found


def test_zeros_that_are_scattered_are_told_with_what_to_do() -> None:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[N,64] x) => (float[N,64] y) '
        "{ h = MatMul(x, w) y = MatMul(h, v) }"
    )
    for name in "wv":
        values = weight(64, 64) * (rng.random((64, 64)) > 0.9)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    notes = prune(model, verify=False).report.notes
    assert len(notes) == 1
    assert notes[0].startswith("90% of the weights are zero, 1 of 128 channels are empty: removal gains little")
    assert "`onnx-shift profile` measures it" in notes[0]
    assert prune(inner("acme.Mix", "v"), verify=False).report.notes == ()


@pytest.mark.parametrize("zeros, said", [(0.98, "98%"), (0.6, "60%"), (0.3, None)])
def test_scattered_zeros_are_told_where_removal_gained_and_most_of_the_rest_is_zero(
    zeros: float, said: str | None
) -> None:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[N,8,6,6] x) => (float[N,64,6,6] y) '
        "{ h = Conv<pads=[1,1,1,1]>(x, w) r = Relu(h) y = Conv<pads=[1,1,1,1]>(r, v) }"
    )
    for name, shape in {"w": (64, 8, 3, 3), "v": (64, 64, 3, 3)}.items():
        values = weight(*shape) * (rng.random(shape) > zeros)
        if name == "w":
            values[:40] = 0
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    report = prune(model, align=1, verify=False).report
    assert report.parameters_after < 0.5 * report.parameters_before
    told = [note.split(";") for note in report.notes]
    if said is None:
        assert not told
    else:
        assert told[0][0] == f"{said} of the weights that stay are zero, scattered where removal takes nothing"
        assert told[0][1].startswith(" served by ModelSwitcher or compiled, these layers run sparse")
