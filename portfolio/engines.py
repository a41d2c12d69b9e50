"""Latency of models in runtimes other than onnxruntime, measured like that in onnxruntime."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from onnx_shift.onnx_pruner.engines.engine import ENGINES, CannotRunError, check_installed, open_model
from onnx_shift.ort import CPU
from onnx_shift.portfolio.latency import Comparison, compare_latency
from onnx_shift.portfolio.profile import ProfileError
from onnx_shift.portfolio.sessions import open_session, random_inputs

Shapes = Mapping[str, Sequence[int]]


def check_runtimes(runtimes: Sequence[str]) -> None:
    """Raise OnnxShiftError for a runtime that is unknown or not installed."""
    for runtime in runtimes:
        if runtime not in ENGINES:
            known = ", ".join(ENGINES)
            raise ProfileError(f"{{runtimes}} {runtime}: unknown, beside onnxruntime there are {known}", runtimes=None)
        check_installed(runtime)


def compare_in_engine(
    runtime: str,
    models: Mapping[str, Path | onnx.ModelProto],
    baseline: str,
    batches: Sequence[int],
    *,
    threads: int,
    seconds: float,
    attempts: int,
    seed: int = 0,
    input_shapes: Shapes | None = None,
) -> dict[int, Comparison]:
    """Time `models` side by side in a runtime, by batch size. Raises ProfileError naming the model that it refuses."""
    with tempfile.TemporaryDirectory(prefix="onnx-shift-") as folder:
        calls: dict[int, dict[str, Callable[[], object]]] = {batch: {} for batch in batches}
        for index, (name, model) in enumerate(models.items()):
            own = Path(folder, str(index), "converted")
            own.mkdir(parents=True)
            path = model if isinstance(model, Path) else own.with_name("model.onnx")
            if isinstance(model, onnx.ModelProto):
                onnx.save(model, path)
            try:
                run = open_model(runtime, path, own, threads)
                session = open_session(path, [CPU], threads)  # for what its inputs are
                for batch in batches:
                    feed = random_inputs(session, batch, seed, input_shapes)
                    run(feed)
                    calls[batch][name] = lambda run=run, feed=feed: run(feed)  # type: ignore[misc]
            except CannotRunError as error:
                raise ProfileError(f"{name}: {runtime} cannot run it: {error}") from error
        return {batch: compare_latency(calls[batch], baseline, seconds=seconds, attempts=attempts) for batch in batches}
