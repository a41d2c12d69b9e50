"""Providers and options of sessions."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from onnx_shift.runtime import (
    ModelSwitcher,
    ProviderError,
    RunError,
    SwitchError,
)
from tests.runtime.conftest import Answers, Make, answer, answers_of, assert_equal


def test_a_dimension_that_options_fix_is_fixed_for_them_alone(
    make_switcher: Make, answers: Answers, images: np.ndarray
) -> None:
    fixed = ort.SessionOptions()
    fixed.add_free_dimension_override_by_name("N", 1)
    one = make_switcher(sess_options=fixed)
    assert one.run(None, {"input": images[:1]})[0].shape == (1, 5)
    with pytest.raises(RunError, match="invalid dimensions"):
        one.run(None, {"input": images})
    assert_equal(answers_of(make_switcher(), images), answers)


def test_unknown_variants_and_providers_are_named(make_switcher: Make, portfolio_path: Path) -> None:
    with pytest.raises(SwitchError, match="no variant 'huge'; there are: small, medium, large"):
        make_switcher().switch("huge")
    with pytest.raises(SwitchError, match="no variant 'huge'"):
        make_switcher(start="huge")
    with pytest.raises(ProviderError, match="TensorrtExecutionProvider: not available in this onnxruntime"):
        make_switcher(providers=["TensorrtExecutionProvider"])
    with pytest.raises(ProviderError, match="2 providers, but 1 provider_options"):
        make_switcher(providers=["CPUExecutionProvider", "CUDAExecutionProvider"], provider_options=[{}])
    with pytest.raises(ProviderError, match=r"give a list of names, such as \['CPUExecutionProvider'\]"):
        make_switcher(providers="CPUExecutionProvider")
    with pytest.raises(ProviderError, match=r"provider 3 with options \{\}: give a name, or a pair of name and"):
        make_switcher(providers=[3])


def test_a_named_fallback_is_taken(make_switcher: Make) -> None:
    model = make_switcher(providers=[("TensorrtExecutionProvider", {"device_id": 0}), "CPUExecutionProvider"])
    assert model.get_providers() == ["CPUExecutionProvider"]


def test_session_options_reach_every_session_and_stay_as_they_were(portfolio_path: Path, tmp_path: Path) -> None:
    given = ort.SessionOptions()
    given.intra_op_num_threads = 1
    given.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with ModelSwitcher(portfolio_path, given, ["CPUExecutionProvider"], cache=tmp_path) as model:
        model.switch("large")
        options = model.session.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert options.intra_op_num_threads == 1
    assert given.optimized_model_filepath == ""
    assert given.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_session_options_may_be_made_by_a_function(make_switcher: Make, answers: Answers, images: np.ndarray) -> None:
    made = []

    def make() -> ort.SessionOptions:
        made.append(ort.SessionOptions())
        made[-1].intra_op_num_threads = 1
        return made[-1]

    model = make_switcher(sess_options=make)
    np.testing.assert_array_equal(answer(model, images), answers["medium"])
    assert len(made) >= 2


def test_without_optimisation_no_graph_is_optimised(
    make_switcher: Make, answers: Answers, images: np.ndarray, tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = make_switcher(sess_options=options, cache=tmp_path / "unused")
    np.testing.assert_allclose(answer(model, images), answers["medium"], rtol=1e-5, atol=1e-6)
    assert not (tmp_path / "unused").exists()
