"""All inputs judged together: what a reduced set of them cannot tell is not said."""

import pytest

from onnx_shift.onnx_pruner.verification import probes
from onnx_shift.onnx_pruner.verification.compare import compare
from onnx_shift.onnx_pruner.verification.engines import read
from onnx_shift.onnx_pruner.verification.judging import watched_tensors
from tests.onnx_pruner.verification.models import parsed

SIGNATURE = "(float[N,3] x) => (float[N,3] y)"
DULL = "z = Sub (x, x) o = Constant <value_float = 1.0> () y = Add (z, o)"


def test_few_inputs_do_not_tell_whether_outputs_depend_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare(parsed(SIGNATURE, DULL), parsed(SIGNATURE, DULL)).weak
    monkeypatch.setattr(probes, "SLOW_SECONDS", 0.0)
    result = compare(parsed(SIGNATURE, DULL), parsed(SIGNATURE, DULL))
    assert (result.equal, result.weak, result.runtimes[0].inputs) == (True, False, 3)


def test_only_what_both_models_compute_and_select_from_is_watched() -> None:
    model = parsed(SIGNATURE, "h = Abs (x) y = Round (h)")
    renamed = parsed(SIGNATURE, "g = Abs (x) y = Round (g)")
    floored = parsed(SIGNATURE, "h = Abs (x) y = Floor (h)")
    sources = [read(one, "net") for one in (model, model, renamed, floored)]
    assert [watched_tensors(sources[0], other, ()) for other in sources[1:]] == [{"h": "Round"}, {}, {}]
    assert watched_tensors(sources[0], sources[1], {"h"}) == {}


def test_one_output_more_elements_is_a_difference() -> None:
    sequence = "(float[N,2] x) => (seq(float[1,2]) rows)"
    longer = parsed(sequence, "w = Concat <axis = 0> (x, x) rows = SplitToSequence (w)")
    assert "output 'rows' differs in shape" in compare(parsed(sequence, "rows = SplitToSequence (x)"), longer).reason
