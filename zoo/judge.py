"""An own comparison of two models by the rule of docs/exactness.md: the code under test must not judge itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

onnxruntime.set_default_logger_severity(4)
#: What onnxruntime raises for an input of a size that the model was not made for.
CANNOT_RUN = (Fail, InvalidArgument, RuntimeException)
DTYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(int64)": np.int64, "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32,
}  # fmt: skip
Answer = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Judgement:
    """The largest difference in units of what is allowed; how far outputs move with the input, over scale."""

    error: float
    moves: float
    cases: int


def open_model(model: onnx.ModelProto, optimised: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feeds(
    session: onnxruntime.InferenceSession, seed: int, scale: float, batch: int, free: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {}
    for one in session.get_inputs():
        shape = [d if isinstance(d, int) else batch if axis == 0 else free for axis, d in enumerate(one.shape)]
        dtype = DTYPES[one.type]
        floating = np.issubdtype(dtype, np.floating)
        values = rng.standard_normal(shape) * scale if floating else rng.integers(0, 2, shape)
        made[one.name] = np.asarray(values, dtype)
    return made


def judge(before: onnx.ModelProto, after: onnx.ModelProto, tolerance: float = 1e-4, batches: int = 3) -> Judgement:
    """Run both as `judge_answers` does; signatures must be the same."""
    a, b = open_model(before), open_model(after)
    assert [(x.name, x.shape, x.type) for x in a.get_inputs()] == [(x.name, x.shape, x.type) for x in b.get_inputs()]
    assert [(x.name, x.type) for x in a.get_outputs()] == [(x.name, x.type) for x in b.get_outputs()]
    return judge_answers(before, lambda fed: b.run(None, fed), tolerance, batches)


def judge_answers(before: onnx.ModelProto, answer: Answer, tolerance: float = 1e-4, batches: int = 3) -> Judgement:
    """Compare `answer` with the model on noise of five scales, on zeros and on up to `batches` samples."""
    a = open_model(before)
    optimised = None
    worst = moves = 0.0
    first: list[np.ndarray] = []
    cases = 0
    for seed, scale, batch in ((0, 1, 1), (1, 3, 2), (2, 0.1, 1), (3, 30, 1), (4, 0, 1), (5, 1, 3)):
        fed = feeds(a, seed, scale, min(batch, batches), 16 + 8 * (batch > 1))
        try:
            left = a.run(None, fed)
        except CANNOT_RUN:
            continue  # not a batch this model was made for
        right = answer(fed)
        first = first or left
        cases += 1
        for k, (x, y) in enumerate(zip(left, right, strict=True)):
            error, scale_of_x = difference(x, y, first[k])
            if error > tolerance:
                optimised = optimised or open_model(before, optimised=True)
                own = difference(x, optimised.run(None, fed)[k], first[k])[0]
                error /= max(tolerance, 10 * own) / tolerance
            worst = max(worst, error / tolerance)
            if x.shape == first[k].shape and x.size:
                moves = max(moves, float(np.max(np.abs(x.astype(float) - first[k].astype(float)))) / scale_of_x)
    return Judgement(worst, moves, cases)


def difference(x: np.ndarray, y: np.ndarray, usual: np.ndarray) -> tuple[float, float]:
    """Return the largest difference over the output's scale, and that scale."""
    if x.shape != y.shape or x.dtype != y.dtype or not np.array_equal(np.isfinite(x), np.isfinite(y)):
        return float("inf"), 1.0
    if x.dtype.kind != "f":
        return float(np.mean(x != y)) * 0.1, 1.0
    u, v, w = (np.where(np.isfinite(z), z, 0).astype(np.float64) for z in (x, y, usual))
    scale = max(float(np.max(np.abs(u), initial=1e-12)), 1e-3 * float(np.max(np.abs(w), initial=0)))
    return float(np.max(np.abs(u - v), initial=0)) / scale, scale
