"""Profile models (the paper's profiler): accuracy, latency, size, memory and the cost of switching to each.

All models are measured side by side in one run, and compared with the dense model *with its BatchNorm fused*:
fusion comes for free with every runtime, so it is never counted as a speed-up.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnx_shift.claims import claimed_accuracy, is_stale
from onnx_shift.onnx_pruner.counting import count_macs, parameter_count
from onnx_shift.onnx_pruner.graph.reading import LoadedModel, read_model
from onnx_shift.onnx_pruner.prune import fold_batch_norm
from onnx_shift.ort import CPU
from onnx_shift.portfolio.accuracy import Accuracy, Data, Evaluate, check_share, measure_accuracy, own_scores
from onnx_shift.portfolio.cascade import Judged, cascades_of
from onnx_shift.portfolio.engines import check_runtimes, compare_in_engine
from onnx_shift.portfolio.inputs import Model, Source, open_sources, variant_name
from onnx_shift.portfolio.latency import Comparison, compare_latency
from onnx_shift.portfolio.machine import check_providers, machine
from onnx_shift.portfolio.memory import measure_sessions
from onnx_shift.portfolio.profile import Baseline, Profile, ProfileError, Timing, Variant
from onnx_shift.portfolio.sessions import fixed_batch, open_compiled, open_session, random_inputs
from onnx_shift.portfolio.switch_cost import measure_switches

DENSE_FUSED = "dense, BatchNorm fused"  # the baseline's name where the dense file itself still has BatchNorm


@dataclass(frozen=True)
class Settings:
    """How to measure: batch sizes, providers, threads, seconds of timing per model and batch size; whether layers with
    scattered zeros run on our kernels where that is faster, as a switcher lets them; whether `data` choose the margins
    of cascades; runtimes beside onnxruntime.
    """

    batches: Sequence[int] = (1,)
    providers: Sequence[str] = (CPU,)
    threads: int = 1
    seconds: float = 1.0
    attempts: int = 2
    seed: int = 0
    input_shapes: Mapping[str, Sequence[int]] | None = None
    memory: bool = True
    kernels: bool = True
    cascade: bool = False
    runtimes: Sequence[str] = ()


def profile(
    models: Sequence[Model],
    *,
    evaluate: Evaluate | None = None,
    data: Data | Mapping[Path, Data] | None = None,
    accuracy: Mapping[Path, float] | None = None,
    dense: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    date: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Profile:
    """Measure `models` against the dense one, side by side.

    `dense` is one of `models`; without it, the model whose metadata say ratio 1, else the one with most
    parameters. Accuracy (0..1) is what `evaluate` returns, given a function that answers as InferenceSession.run does:
    one share, or several by name, of which that called "accuracy", else the first, ranks the variants. Or it is that of
    `data`, batches of (images as the models take them, class numbers), for each model its own where they take them
    differently; or, marked as a claim, as `accuracy` says; without any of them it is what the models' metadata claim,
    unless their weights have changed since. Portfolios stand for all their variants. Raises ProfileError naming the
    file, provider, shape or data at fault.
    """
    settings = settings or Settings()
    if evaluate is not None and data is not None:
        raise ProfileError("{evaluate} and {data} both say what the accuracy is: give one", evaluate=None, data=None)
    stated = accuracy or {}
    if stated and (evaluate is not None or data is not None):
        raise ProfileError("{accuracy}: is measured by {data} or {evaluate}", accuracy=None, data=None, evaluate=None)
    if settings.cascade and data is None:
        raise ProfileError("{cascade}: margins are chosen on the images of {data}", cascade=None, data=None)
    check_providers(settings.providers)
    check_runtimes(settings.runtimes)
    with open_sources(models) as sources:
        return _profile(sources, evaluate, data, stated, dense, settings, date, progress)


def _profile(
    sources: Sequence[Source],
    evaluate: Evaluate | None,
    data: Data | Mapping[Path, Data] | None,
    stated: Mapping[Path, float],
    dense: str | os.PathLike[str] | None,
    settings: Settings,
    date: str | None,
    progress: Callable[[str], None],
) -> Profile:
    paths = [source.path for source in sources]
    for path, share in stated.items():
        if path not in paths:
            raise ProfileError("{accuracy}: is none of the models to profile", accuracy=path)
        check_share(f"{path}: {{accuracy}} of", share, accuracy=None)
    read = {variant_name(path): read_model(path) for path in paths}
    if len(read) < len(paths):
        names = [variant_name(path) for path in paths]
        twice = next(name for name in names if names.count(name) > 1)
        raise ProfileError(f"{twice}: two models have this name, and a variant is named after its file")
    dense_name = variant_name(Path(dense)) if dense else _dense(read)
    if dense_name not in read:
        raise ProfileError(f"{dense}: the dense model is not among the models to profile")

    check_shapes(paths, read, settings.input_shapes or {})
    counts: dict[str, dict[str, Any]] = {}
    for source in sources:
        progress(f"counting {source.name}")
        counts[source.name] = _counted(read[source.name], settings, source.metadata)
    compiled = _compiled(read, settings, progress)
    for name, (_, graph) in compiled.items():
        counts[name]["structure"] = _structure(graph)
    timed: dict[str, Path | ModelProto] = {variant_name(path): path for path in paths}
    fastest_dense = dense_name
    if any(node.op_type == "BatchNormalization" for node in read[dense_name].model.graph.node):
        timed[DENSE_FUSED], fastest_dense = fold_batch_norm(read[dense_name].model), DENSE_FUSED
    timings = {
        provider: _timed(timed, fastest_dense, provider, compiled if provider == CPU else {}, settings, progress)
        for provider in settings.providers
    }
    for runtime in settings.runtimes:
        progress(f"timing {len(paths)} models on {runtime}")
        timings[runtime] = _timed_elsewhere(runtime, timed, fastest_dense, settings)
    progress("switching")
    judged: dict[str, Judged] = {}
    costs = measure_switches(paths, providers=_with_cpu(settings.providers[0]), threads=settings.threads)
    first, *others = timings
    for path in paths:
        batches = data.get(path) if isinstance(data, Mapping) else data
        found = counts[variant_name(path)]
        if evaluate is not None:
            progress(f"evaluating {variant_name(path)}")
            found |= {**own_scores(path, evaluate, first, settings.threads), "accuracy_claimed": False}
        if path in stated:
            found |= {"accuracy": stated[path], "accuracy_claimed": True}
        if batches is not None:
            progress(f"accuracy of {variant_name(path)}")
            accuracy = measure_accuracy(path, batches(), first, settings.threads)
            found |= _evaluated(accuracy)
            judged[variant_name(path)] = accuracy.judged
    # In the order of a portfolio, as the costs are: the larger are asked.
    cascades = cascades_of({name: judged[name] for name in costs if name in judged}) if settings.cascade else {}

    def variant(name: str) -> Variant:
        cost = costs[name]
        return Variant(
            timings[first][name],
            **counts[name],
            deflated_bytes=cost.deflated_bytes,
            switch_ms=None if cost.switch_ms is None else round(cost.switch_ms, 3),
            providers={provider: timings[provider][name] for provider in others},
            cascade=cascades.get(name, {}),
        )

    baseline = Baseline(dense_name)
    if DENSE_FUSED in timings[first]:
        elsewhere = {provider: timings[provider][DENSE_FUSED] for provider in others}
        baseline = Baseline(DENSE_FUSED, timings[first][DENSE_FUSED], elsewhere)
    where = machine(settings.providers, settings.threads, date, settings.runtimes)
    return Profile({name: variant(name) for name in read}, dense_name, where, baseline)


def check_shapes(
    models: Sequence[Path], read: Mapping[str, LoadedModel], input_shapes: Mapping[str, Sequence[int]]
) -> None:
    """Raise ProfileError where a given shape names an input of no model, or is not one that the input takes."""
    unknown = set(input_shapes)
    for path in models:
        for value in read[variant_name(path)].model.graph.input:
            wanted = input_shapes.get(value.name)
            if wanted is None:
                continue
            unknown.discard(value.name)
            axes = [axis.dim_value or axis.dim_param or "?" for axis in value.type.tensor_type.shape.dim]
            fits = len(wanted) == len(axes) and all(
                size > 0 and (size == axis or not isinstance(axis, int))
                for size, axis in zip(wanted, axes, strict=True)
            )
            if not fits:
                shape, takes = ",".join(map(str, wanted)), ",".join(map(str, axes))
                raise ProfileError(f"{{input_shapes}} {value.name}={shape}: {path} takes ({takes})", input_shapes=None)
    for name in sorted(unknown):
        raise ProfileError(f"{{input_shapes}} {name}: none of the models has an input of this name", input_shapes=None)


def _counted(source: LoadedModel, settings: Settings, of_portfolio: Mapping[str, Any]) -> dict[str, Any]:
    stated = stated_metadata(source.model)
    accuracy = claimed_accuracy(source.model)
    if accuracy is None and not is_stale(source.model):
        accuracy = of_portfolio.get("accuracy")
    return {
        "model_sha256": source.sha256,
        "structure": _structure(source.model),
        "parameters": parameter_count(source.model),
        "macs": count_macs(source.model, settings.input_shapes),
        "file_bytes": source.file_bytes,
        "ratio": _number(stated.get("ratio")),
        "accuracy": accuracy,
        "accuracy_claimed": accuracy is not None,
    }


def _evaluated(found: Accuracy) -> dict[str, Any]:
    return {
        "accuracy": round(found.top1, 6),
        "accuracy_claimed": False,
        "top5": round(found.top5, 6),
        "images": found.images,
        "classes": found.classes,
    }


def _structure(model: ModelProto) -> str:
    """Return a hash of all that decides what a run costs: the nodes and the shapes of weights, not their values."""
    nodes = [node.SerializeToString(deterministic=True) for node in model.graph.node]
    weights = sorted((tensor.name, tensor.data_type, tuple(tensor.dims)) for tensor in model.graph.initializer)
    return hashlib.sha256(repr((nodes, weights)).encode()).hexdigest()


def stated_metadata(model: ModelProto) -> dict[str, str]:
    """Return what onnx-shift wrote into the model's metadata, its prefix left out."""
    prefix = "onnx_shift."
    properties = {prop.key: prop.value for prop in model.metadata_props}
    return {key.removeprefix(prefix): text for key, text in properties.items() if key.startswith(prefix)}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _compiled(
    read: Mapping[str, LoadedModel], settings: Settings, progress: Callable[[str], None]
) -> dict[str, tuple[Any, ModelProto]]:
    """Session and graph of each model that runs on our kernels on the CPU, by name."""
    found = {}
    for name, source in read.items() if settings.kernels and CPU in settings.providers else ():
        progress(f"compiling {name}")
        compiled = open_compiled(source.model, settings.threads, settings.input_shapes)
        if compiled is not None:
            found[name] = compiled
    return found


def _timed(
    models: Mapping[str, Path | ModelProto],
    baseline: str,
    provider: str,
    compiled: Mapping[str, tuple[Any, ModelProto]],
    settings: Settings,
    progress: Callable[[str], None],
) -> dict[str, Timing]:
    """Latency and throughput of every model, and memory of every file, on one provider."""
    chosen = _with_cpu(provider)
    sessions = {
        name: compiled[name][0] if name in compiled else open_session(_content(model), chosen, settings.threads)
        for name, model in models.items()
    }
    found: dict[int, Comparison] = {}
    for batch in _batches(sessions, settings):
        progress(f"timing {len(sessions)} models on {provider}, batch {batch}")
        found[batch] = _compare(sessions, baseline, batch, settings)
    del sessions
    memory = {}
    for name, model in models.items() if settings.memory else ():
        if not isinstance(model, Path):
            continue
        progress(f"memory of {name}")
        resident = measure_sessions(
            [model], providers=chosen, threads=settings.threads, input_shapes=settings.input_shapes
        )
        if resident is not None:
            memory[name] = {
                "memory_mb": round(resident.resident_bytes / 1e6, 2),
                "peak_memory_mb": round(resident.peak_bytes / 1e6, 2),
            }
    return {name: _timing(name, found, **memory.get(name, {})) for name in models}


def _content(model: Path | ModelProto) -> Path | bytes:
    return model if isinstance(model, Path) else bytes(model.SerializeToString())


def _timed_elsewhere(
    runtime: str, models: Mapping[str, Path | ModelProto], baseline: str, settings: Settings
) -> dict[str, Timing]:
    """Latency and throughput of every model in a runtime other than onnxruntime."""
    files = {name: model for name, model in models.items() if isinstance(model, Path)}
    batches = _batches({name: open_session(path, [CPU], 1) for name, path in files.items()}, settings)
    found = compare_in_engine(
        runtime,
        models,
        baseline,
        batches,
        threads=settings.threads,
        seconds=settings.seconds,
        attempts=settings.attempts,
        seed=settings.seed,
        input_shapes=settings.input_shapes,
    )
    return {name: _timing(name, found) for name in models}


def _timing(name: str, found: Mapping[int, Comparison], **memory: float) -> Timing:
    return Timing(
        {batch: one.latency[name] for batch, one in found.items()},
        {batch: one.speedup[name] for batch, one in found.items()},
        max(round(1000 * batch / one.latency[name].p50_ms, 1) for batch, one in found.items()),
        **memory,
    )


def _with_cpu(provider: str) -> list[str]:
    return list(dict.fromkeys([provider, CPU]))


def _compare(sessions: Mapping[str, Any], baseline: str, batch: int, settings: Settings) -> Comparison:
    def call(session: Any) -> Callable[[], object]:
        feed = random_inputs(session, batch, settings.seed, settings.input_shapes)
        return lambda: session.run(None, feed)

    calls = {name: call(session) for name, session in sessions.items()}
    return compare_latency(calls, baseline, seconds=settings.seconds, attempts=settings.attempts)


def _batches(sessions: Mapping[str, Any], settings: Settings) -> list[int]:
    """The batch sizes that every model takes: the asked ones, or the one size that a model insists on."""
    fixed = {size: name for name, session in sessions.items() if (size := fixed_batch(session)) is not None}
    if len(fixed) > 1:
        raise ProfileError(f"the models take different fixed batches {sorted(fixed)}: profile them apart")
    for size, name in fixed.items():
        if set(settings.batches) - {1, size}:
            raise ProfileError(
                f"{name}: takes batches of {size} only; leave out {{batches}}, or profile it apart", batches=None
            )
    return sorted(fixed) or sorted(set(settings.batches))


def _dense(read: Mapping[str, LoadedModel]) -> str:
    for name, source in read.items():
        if stated_metadata(source.model).get("ratio") in ("1", "1.0"):
            return name
    return max(read, key=lambda name: parameter_count(read[name].model))
