"""Policies by name, as commands and configuration files give them."""

from collections.abc import Callable

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import import_named
from onnx_shift.runtime.baselines import AccuracyScaling, ProfileDriven, SlackBased
from onnx_shift.runtime.deadline import Deadline
from onnx_shift.runtime.load import Policy
from onnx_shift.runtime.policy import LatencyObjective, QueriesPerSecond

DEFAULT_P95_MS = 100.0


def chosen_policy(name: str | None, p95_ms: float | None) -> Policy | None:
    """Return the policy of that name for an objective, LatencyObjective where there is only an objective, None where
    there is neither. Raises OnnxShiftError as `policy_maker` does.
    """
    if name is None and p95_ms is None:
        return None
    return policy_maker(name or "latency")(DEFAULT_P95_MS if p95_ms is None else p95_ms)


def policy_maker(text: str) -> Callable[[float], Policy]:
    """Return the function of the objective in milliseconds that makes the policy of that name, or the one at
    package.module:function, which may lie in the working folder. Raises OnnxShiftError.
    """
    named: dict[str, Callable[[float], Policy]] = {
        "latency": lambda objective_ms: LatencyObjective(p95_ms=objective_ms),
        "deadline": lambda objective_ms: Deadline(p95_ms=objective_ms),
        "qps": lambda objective_ms: QueriesPerSecond(),
        "profile": lambda objective_ms: ProfileDriven(p95_ms=objective_ms),
        "slack": lambda objective_ms: SlackBased(p95_ms=objective_ms),
        "scaling": lambda objective_ms: AccuracyScaling(p95_ms=objective_ms),
    }
    if text in named:
        return named[text]
    module, colon, function = text.partition(":")
    if not (module and colon and function):
        raise OnnxShiftError(f"--policy {text}: not one of {', '.join(named)}, and no package.module:function")
    found: Callable[[float], Policy] = import_named(text, "--policy")

    def make(objective_ms: float) -> Policy:
        try:
            return found(objective_ms)
        except Exception as error:  # it is anybody's code
            raise OnnxShiftError(f"--policy {text}: makes no policy ({error!r})") from error

    return make
