import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime.policies import chosen_policy, policy_maker
from onnx_shift.runtime.policy import LatencyObjective, QueriesPerSecond


def test_policies_are_made_by_name_or_by_a_function_of_ones_own() -> None:
    policy = policy_maker("latency")(7)
    assert isinstance(policy, LatencyObjective) and policy.p95_ms == 7
    assert isinstance(policy_maker("qps")(7), QueriesPerSecond)
    assert policy_maker("onnx_shift.runtime.policy:MemoryBudget")(7).keep_free_bytes == 7  # type: ignore[attr-defined]


def test_an_objective_alone_is_held_and_a_policy_alone_has_one_of_100_ms() -> None:
    assert chosen_policy(None, None) is None
    for policy, p95_ms in ((chosen_policy(None, 0.5), 0.5), (chosen_policy("latency", None), 100)):
        assert isinstance(policy, LatencyObjective) and policy.p95_ms == p95_ms
    with pytest.raises(ValueError, match="p95_ms"):
        chosen_policy(None, 0.0)


def test_what_makes_no_policy_is_refused_by_name() -> None:
    for text, message in (
        ("fastest", "--policy fastest: not one of latency, deadline, qps, .*, and no package.module:function"),
        ("nowhere:policy", "--policy nowhere:policy: cannot be imported"),
        ("builtins:int", None),
        ("builtins:open_nothing", "cannot be imported"),
    ):
        if message is None:
            assert policy_maker(text)(7) == 7  # the switcher refuses what is no policy
            continue
        with pytest.raises(OnnxShiftError, match=message):
            policy_maker(text)
    with pytest.raises(OnnxShiftError, match="makes no policy"):
        policy_maker("builtins:len")(7)
