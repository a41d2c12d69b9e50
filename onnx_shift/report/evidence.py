"""Gather what a run's folder or a portfolio holds, for the report."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from onnx_shift.checks import is_number, is_positive, is_share, is_text
from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import read_bytes
from onnx_shift.options import as_option
from onnx_shift.views.tables import show_number

if TYPE_CHECKING:
    from onnx_shift.portfolio.profile import Profile

_PROFILE, _REPLAY = "profile.json", "replay.json"
_ORIGIN = {"preset": "preset", "method": "method", "seed": "seed", "version": "onnx-shift"}


@dataclass(frozen=True)
class Layer:
    """Output channels of one layer, before and after pruning."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Pruning:
    """What pruning did to one variant: its layers, and in words what stayed although it looked removable."""

    layers: Sequence[Layer]
    kept: Sequence[str] = ()


@dataclass(frozen=True)
class Evidence:
    """What a report may show; what is absent leaves its section out, and `missing` says how to get it.

    `dropped` gives the reason for every variant that is not worth shipping; it is None where nothing was chosen,
    for a `refusal` if one was tried. `levels` are those of a training: ratio, weights kept, accuracy. `origin` says
    where all this was read.
    """

    title: str
    profile: "Profile | None" = None
    dropped: Mapping[str, str] | None = None
    optimal: Sequence[str] = ()
    refusal: str = ""
    prunings: Mapping[str, Pruning] = field(default_factory=dict)
    replay: Mapping[str, Any] | None = None
    levels: Sequence[Mapping[str, float]] = ()
    missing: Sequence[str] = ()
    origin: Sequence[str] = ()

    def reason(self, name: str) -> str | None:
        """Why this variant was left out, None where it was not."""
        return (self.dropped or {}).get(name)


def gather_evidence(source: Path) -> Evidence:
    """Return what there is to show of `source`, a folder with models and profile, a profile, or a portfolio.

    A folder and the folders in it are searched for one profile and one replay, first for those called profile.json
    and replay.json in the folder itself, for reports of `prune --report`, and for the levels.csv of a training. What is
    not of the profile's variants is left out. Raises OnnxShiftError naming the file that is not what it should be, or
    where there is nothing to show.
    """
    if source.is_dir():
        return _of_folder(source)
    if source.suffix == ".json":
        return _of_profile(source)
    return _of_portfolio(source)


def _of_folder(folder: Path) -> Evidence:
    found = {path: _read(path) for path in _searched(folder)}
    profiles = [path for path in found if path == folder / _PROFILE or _has(found[path], "variants", "machine")]
    replays = [path for path in found if path == folder / _REPLAY or _has(found[path], "trace", "runs")]
    profile = _profile(profiles[0], found[profiles[0]]) if profiles else None
    names = None if profile is None else set(profile.variants)
    strangers = [path for path in replays if not _is_of(names, found[path])]
    replays = [path for path in replays if path not in strangers]
    unused = [*profiles[1:], *replays[1:], *strangers]
    replay = None
    if replays:
        replay = _checked(replays[0], found[replays[0]], "replay", _replay_shape(found[replays[0]]))
    prunings: dict[str, Pruning] = {}
    reports, without = [], []
    for path, content in found.items():
        if not _has(content, "parameters_after_align_1"):
            continue
        report = _checked(path, content, "report of onnx-shift prune", _PRUNING_SHAPE)
        name = Path(report["source"]).stem
        known = names is None or any(other == name or other.startswith(f"{name}.") for other in names)
        if name in prunings or not known:
            unused.append(path)
        elif report["layers"]:
            prunings[name] = _pruning(report)
            reports.append(path)
        else:
            without.append(f"{path.relative_to(folder)} lists no layers with weights")
    trained = next(iter((*folder.glob("levels.csv"), *sorted(folder.glob("*/levels.csv")))), None)
    levels = _levels(trained) if trained is not None else []
    if profile is None and not prunings and replay is None and not levels:
        reason = without[0] if without else "holds no training, profile, pruning report or replay"
        raise OnnxShiftError(f"{folder}: {reason}; see onnx-shift profile --help")

    missing = [f"channels per layer: {reason}" for reason in without]
    dropped, optimal, refusal = _selection(profile)
    if profile is None:
        missing.append(f"accuracy, latency and size: onnx-shift profile MODEL.onnx ... -o {folder / _PROFILE}")
    else:
        missing += _unmeasured(profile)
    if not prunings:
        missing.append("channels per layer: onnx-shift prune SPARSE.onnx --report FILE.json, into this folder")
    if replay is None:
        missing.append(f"switching under load: onnx-shift replay PORTFOLIO.zip -o {folder}")
    taken = [*profiles[:1], *replays[:1], *([trained] if trained is not None else [])]
    return Evidence(
        f"Variants of {folder.resolve().name}",
        profile,
        dropped,
        optimal,
        refusal,
        prunings,
        replay,
        levels,
        missing,
        _read_from(folder, taken, reports, unused),
    )


def _of_profile(path: Path) -> Evidence:
    profile = _profile(path, _read(path))
    dropped, optimal, refusal = _selection(profile)
    missing = [*_unmeasured(profile), "channels per layer, switching under load: give the folder that holds them"]
    origin = [f"Read from {path.name}."]
    return Evidence(f"Profile {path.name}", profile, dropped, optimal, refusal, missing=missing, origin=origin)


def _levels(path: Path) -> list[Mapping[str, float]]:
    """What `train` wrote of its levels."""
    rows = list(csv.DictReader(io.StringIO(read_bytes(path).decode(errors="replace"))))
    try:
        keys = ("level", "ratio", "kept", "total", "accuracy")
        levels: list[Mapping[str, float]] = [{key: float(row[key]) for key in keys} for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise OnnxShiftError(f"{path}: no list of levels, as train writes it ({error})") from error
    if any(not (level["ratio"] >= 1 and 0 <= level["accuracy"] <= 1) for level in levels):
        raise OnnxShiftError(f"{path}: no list of levels, as train writes it (a ratio below 1, or no accuracy)")
    return levels


def _is_of(names: set[str] | None, replay: Mapping[str, Any] | None) -> bool:
    """Whether a replay, where it tells its variants, is of the profile's."""
    served = None if replay is None else replay.get("variants")
    told = isinstance(served, list) and all(isinstance(name, str) for name in served)
    return names is None or not told or names.issuperset(served or [])


def _searched(folder: Path) -> list[Path]:
    """The JSON files of `folder` and the folders in it, in the order in which they are preferred."""
    paths = [path for path in (*folder.glob("*.json"), *folder.glob("*/*.json")) if path.is_file()]
    return sorted(paths, key=lambda path: (path.parent != folder, path.name not in (_PROFILE, _REPLAY), path))


def _read(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, None where it holds something else."""
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _has(content: Mapping[str, Any] | None, *keys: str) -> bool:
    return content is not None and all(key in content for key in keys)


def _read_from(folder: Path, taken: Sequence[Path], reports: Sequence[Path], unused: Sequence[Path]) -> list[str]:
    names = [str(path.relative_to(folder)) for path in taken]
    if reports:
        plural = "s" if len(reports) > 1 else ""
        names.append(f"{len(reports)} report{plural} of onnx-shift prune")
    lines = [f"Read from {', '.join(names)}."]
    if unused:
        others = ", ".join(str(path.relative_to(folder)) for path in unused)
        lines.append(f"Found as well and not used: {others}.")
    return lines


def _of_portfolio(path: Path) -> Evidence:
    from onnx_shift.portfolio.profile import Profile, ProfileError
    from onnx_shift.portfolio.select import select
    from onnx_shift.runtime import Portfolio

    measured = {variant.name: dict(variant.metadata) for variant in Portfolio.open(path)}
    if not all("latency_ms" in entry for entry in measured.values()):
        raise OnnxShiftError(f"{path}: was packed without --profile, so there is nothing to show")
    try:
        profile = Profile.from_dict({"variants": measured})
    except ProfileError as error:
        raise OnnxShiftError(f"{path}: not a portfolio with figures: {error}") from error
    first, *others = measured.values()
    shared = [
        f"{words} {first[key]}"
        for key, words in _ORIGIN.items()
        if key in first and all(other.get(key) == first[key] for other in others)
    ]
    origin = [f"All variants: {', '.join(shared)}."] if shared else []
    origin.append(
        "A portfolio does not state machine, date, threads and baseline; the profile it was packed with does."
    )
    return Evidence(
        f"Portfolio {path.name}",
        profile,
        optimal=select(profile, keep_all=True).optimal,
        missing=[
            *_unmeasured(profile),
            "what was left out and why, channels per layer, switching under load: give the run's folder",
        ],
        origin=origin,
    )


def _profile(path: Path, content: Mapping[str, Any] | None) -> "Profile":
    from onnx_shift.portfolio.profile import Profile, ProfileError

    try:
        if content is not None and content.get("variants") == {}:
            raise ProfileError("variants is {}")
        return Profile.from_dict(content)
    except ProfileError as error:
        raise OnnxShiftError(f"{path}: not a profile: {error}") from error


def _selection(profile: "Profile | None") -> tuple[Mapping[str, str] | None, Sequence[str], str]:
    """What `pack` would leave out and why, what is Pareto-optimal, or the reason why it would choose nothing."""
    from onnx_shift.portfolio.select import SelectionError, select

    if profile is None:
        return None, (), ""
    try:
        selection = select(profile)
    except SelectionError as error:
        return None, (), error.told(as_option)
    return selection.dropped, selection.optimal, ""


def _unmeasured(profile: "Profile") -> list[str]:
    entries = profile.variants
    claimed = [name for name, entry in entries.items() if entry.accuracy_claimed]
    notes = [f"the accuracy of {', '.join(claimed)} is claimed, not measured; onnx-shift profile with --data"]
    names = [name for name, entry in entries.items() if entry.accuracy is None]
    if not names:
        return notes if claimed else []
    which = "any variant" if len(names) == len(entries) else ", ".join(names)
    return [f"accuracy against latency and size: no accuracy of {which}; onnx-shift profile with --data"]


def _pruning(report: Mapping[str, Any]) -> Pruning:
    layers = [_layer(layer) for layer in report["layers"]]
    kept = [
        f"{entry['tensor']}: {show_number(len(entry['channels']), 'channel')}, {entry['reason']}"
        for entry in report["kept"]
    ]
    return Pruning(layers, [*kept, *report["notes"]])


def _layer(layer: Mapping[str, Any]) -> Layer:
    before, after = layer["before"], layer["after"]
    axis = _output_axis(layer["op"], before, layer["parameters_before"])
    return Layer(layer["name"], before[axis], after[axis] if len(after) == len(before) else 0)


def _output_axis(operator: str, shape: Sequence[int], parameters: int) -> int:
    """Which axis of a weight counts output channels; a Gemm's weight may lie either way, its bias tells."""
    if len(shape) < 2:
        return 0
    if operator == "Gemm" and shape[0] != shape[1] == parameters - math.prod(shape):
        return 1
    return {"ConvTranspose": 1, "MatMul": len(shape) - 1}.get(operator, 0)


# --- what the files must hold ------------------------------------------------------------------------------


def _checked(path: Path, content: Mapping[str, Any] | None, kind: str, shape: Any) -> dict[str, Any]:
    """Return `content` if it has that shape. Raises OnnxShiftError naming the file and the place at fault."""
    if content is None:
        raise OnnxShiftError(f"{path}: no {kind}: it holds no JSON object")
    if fault := _fault(content, shape, ""):
        raise OnnxShiftError(f"{path}: no {kind}: {fault}")
    return dict(content)


def _fault(value: Any, shape: Any, place: str) -> str | None:
    """Return in words where `value` first differs from `shape`, None where it does not.

    A shape is a predicate, a list of the shape that all elements have, or a mapping of keys to the shapes of their
    values: a key ending in ? may be missing, and a predicate in place of a key stands for all keys, at least one.
    """
    if value is None:
        return f"{place} is missing"
    if not (shape(value) if callable(shape) else isinstance(value, type(shape))):
        return f"{place} is {shorten(repr(value), 60)}"
    parts: list[tuple[str, Any, Any]] = []
    if isinstance(shape, list):
        parts = [(f"{place}[{index}]", part, shape[0]) for index, part in enumerate(value)]
    for key, inner in shape.items() if isinstance(shape, dict) else ():
        dot = f"{place}." if place else ""
        if callable(key):
            if not value or not all(map(key, value)):
                return f"{place} is {shorten(repr(value), 60)}"
            parts += [(f"{dot}{name}", part, inner) for name, part in value.items()]
        elif not key.endswith("?") or value.get(key[:-1]) is not None:
            name = key.removesuffix("?")
            parts.append((f"{dot}{name}", value.get(name), inner))
    return next((fault for where, part, inner in parts if (fault := _fault(part, inner, where))), None)


def _sizes(value: Any) -> bool:
    return bool(value) and isinstance(value, list) and all(isinstance(size, int) and size > 0 for size in value)


_PRUNING_SHAPE = {
    "source": is_text,
    "layers": [
        {"name": is_text, "op": is_text, "before": _sizes, "after": [is_number], "parameters_before": is_number}
    ],
    "kept": [{"tensor": is_text, "channels": [is_number], "reason": is_text}],
    "notes": [is_text],
}


def _replay_shape(replay: Mapping[str, Any] | None) -> Any:
    """The shape of a replay, in which only its own variants serve."""
    names = (replay or {}).get("variants")

    def served(value: Any) -> bool:
        return isinstance(names, list) and value in names

    def switch(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 2 and is_number(value[0]) and served(value[1])

    interval = {
        "seconds": is_number,
        "requests_per_second": is_number,
        "p50_ms?": is_number,
        "p95_ms?": is_number,
        "variant?": served,
        "accuracy?": is_share,
    }
    run = {
        "requests": is_number,
        "within_objective": is_share,
        "latency_ms": {"p50": is_number, "p95": is_number, "p99": is_number},
        "accuracy?": is_share,
        "switches": is_number,
        "switched": [switch],
        "intervals": [interval],
    }
    return {
        "trace": is_text,
        "duration_s": is_positive,
        "variants": [is_text],
        "objective_ms": is_positive,
        "largest_serves_per_second": is_positive,
        "figures": {"within_of_smallest": is_number, "accuracy_gain?": is_number},
        "runs": {is_text: run, "policy": run},
    }
