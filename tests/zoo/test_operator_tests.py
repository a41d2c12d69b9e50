"""The operator tests of the installed onnx package: whatever onnxruntime runs is pruned, and refusals have a reason."""

import time
import warnings
from collections import Counter

import onnx
import onnxruntime
import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner import prune
from onnx_shift.ort import BUILD_ERRORS, CPU

HANGS_SECONDS = 10
#: Why a model may be refused: onnxruntime has no kernel for it, or it states no version for the operators it uses.
REASONS = ("onnxruntime cannot run it", "states no version of the standard operators")


def collected() -> dict[str, onnx.ModelProto]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, on the expected outputs
        from onnx.backend.test.case.node import collect_testcases

        return {case.name: case.model for case in collect_testcases(None) if case.model is not None}


def is_run(model: onnx.ModelProto) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    except BUILD_ERRORS:
        return False
    return True


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
def test_every_operator_test_is_pruned_or_refused_with_a_reason() -> None:
    refused: dict[str, str] = {}
    untried, hanging = [], []
    models = collected()
    assert len(models) > 1500
    for name, model in models.items():
        began = time.perf_counter()
        try:
            notes = prune(model).report.notes
            untried += [name] if any("on none of the inputs tried" in note for note in notes) else []
        except OnnxShiftError as error:
            refused[name] = next((reason for reason in REASONS if reason in str(error)), str(error))
        hanging += [name] if time.perf_counter() - began > HANGS_SECONDS else []
    assert hanging == []
    assert set(refused.values()) <= set(REASONS), Counter(refused.values())
    assert [name for name in refused if is_run(models[name])] == []
    assert len(untried) < len(models) / 100
    assert len(refused) < len(models) / 10, Counter(refused.values())
