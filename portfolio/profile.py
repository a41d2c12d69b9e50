"""The profile of models measured side by side: its fields, read, checked and written here alone (format 1)."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import Any, TypeVar

from onnx_shift.checks import is_number, is_positive, is_share, is_text
from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import read_bytes, write_text

FORMAT = 1
T = TypeVar("T")


class ProfileError(OnnxShiftError):
    """A model cannot be profiled as asked, or a file is not a profile: the message names what is at fault."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call: percentiles over all calls, and how far the rounds lay apart."""

    p50_ms: float
    p95_ms: float | None = None
    p99_ms: float | None = None
    spread: float = 0.0  # interquartile range of the rounds' medians over their median
    calls: int = 0
    attempts: int = 1
    noisy: bool = False

    def to_dict(self) -> dict[str, Any]:
        return _present(
            p50=self.p50_ms,
            p95=self.p95_ms,
            p99=self.p99_ms,
            spread=self.spread,
            calls=self.calls,
            attempts=self.attempts,
            noisy=self.noisy,
        )


@dataclass(frozen=True)
class Speedup:
    """How many times faster than the baseline: median, lowest and highest of the rounds of one attempt."""

    median: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Timing:
    """How fast a model is on one provider, by batch size, and the megabytes that a session of it takes."""

    latency: Mapping[int, Latency]
    speedup: Mapping[int, Speedup] = field(default_factory=dict)
    images_per_second: float | None = None  # at the best batch
    memory_mb: float | None = None
    peak_memory_mb: float | None = None

    @property
    def smallest_batch(self) -> int:
        """The batch by which models are compared."""
        return min(self.latency)

    @property
    def median_ms(self) -> float:
        """The median latency at the smallest batch."""
        return self.latency[self.smallest_batch].p50_ms

    @property
    def compared(self) -> Speedup | None:
        """The speed-up at the smallest batch."""
        return self.speedup.get(self.smallest_batch)

    def to_dict(self) -> dict[str, Any]:
        return {
            "latency_ms": {str(batch): latency.to_dict() for batch, latency in self.latency.items()},
            "speedup": {str(batch): speedup.to_dict() for batch, speedup in self.speedup.items()},
            **_present(throughput=self.images_per_second, memory_mb=self.memory_mb, peak_memory_mb=self.peak_memory_mb),
        }


@dataclass(frozen=True)
class Cascade:
    """A more accurate variant, asked for the images whose two largest scores lie closer together than `margin`: the
    share of images that it is asked for, and the accuracy of the two (0..1), on the images that chose the margin.
    """

    margin: float
    share: float
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Variant:
    """What one model is and costs; None is what was not measured. Shares are 0..1, multiply–accumulates per sample.

    `scores` are what an evaluation of the user's own returned by name; `accuracy` is the one to rank by. `timing` is
    that on the first provider, `providers` those on the others and in other runtimes. `cascade` says when to ask which
    other variant. `structure` hashes all that decides what a run costs: the nodes and the shapes of weights. `other`
    keeps fields of a file that this version does not know.
    """

    timing: Timing
    file_bytes: int
    deflated_bytes: int | None = None
    model_sha256: str | None = None
    structure: str | None = None
    parameters: int | None = None
    macs: int | None = None
    ratio: float | None = None
    accuracy: float | None = None
    top5: float | None = None
    images: int | None = None
    classes: int | None = None
    switch_ms: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    providers: Mapping[str, Timing] = field(default_factory=dict)
    cascade: Mapping[str, Cascade] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)
    accuracy_claimed: bool = False  # taken over from the model's metadata, not measured

    def to_dict(self) -> dict[str, Any]:
        """The entry of the file; what any model could have, but this one has not, is null there."""
        providers = {name: timing.to_dict() for name, timing in self.providers.items()}
        cascade = {name: one.to_dict() for name, one in self.cascade.items()}
        return {
            **_present(model_sha256=self.model_sha256, structure=self.structure, parameters=self.parameters),
            "macs": self.macs,
            "file_bytes": self.file_bytes,
            "ratio": self.ratio,
            "accuracy": self.accuracy,
            **_present(accuracy_claimed=self.accuracy_claimed or None),
            **self.timing.to_dict(),
            **_present(providers=providers or None, deflated_bytes=self.deflated_bytes),
            "switch_ms": self.switch_ms,
            **_present(scores=dict(self.scores) or None, top5=self.top5, images=self.images, classes=self.classes),
            **_present(cascade=cascade or None),
            **self.other,
        }


@dataclass(frozen=True)
class Machine:
    """Where and with what was measured; the first of `providers` is the one that variants are compared on. Other
    runtimes stand among `providers`, their versions in `runtimes`.
    """

    processor: str
    cores: int
    onnxruntime: str
    providers: tuple[str, ...]
    threads: int
    system: str | None = None
    python: str | None = None
    onnx: str | None = None
    date: str | None = None
    runtimes: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            **_present(processor=self.processor, cores=self.cores, system=self.system, python=self.python),
            **_present(onnxruntime=self.onnxruntime, onnx=self.onnx, runtimes=dict(self.runtimes) or None),
            "providers": list(self.providers),
            "threads": self.threads,
            "date": self.date,
        }


@dataclass(frozen=True)
class Baseline:
    """What speed-ups are against; its own `timing` where it is none of the variants."""

    name: str
    timing: Timing | None = None
    providers: Mapping[str, Timing] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        timing = self.timing.to_dict() if self.timing else {}
        providers = {name: timing.to_dict() for name, timing in self.providers.items()}
        return {"name": self.name, **timing, **_present(providers=providers or None)}


@dataclass(frozen=True)
class Profile:
    """Models measured side by side, by name; `dense` names the one that the others are compared with.

    A portfolio states its variants alone: `machine`, `dense` and `baseline` are then None.
    """

    variants: Mapping[str, Variant]
    dense: str | None = None
    machine: Machine | None = None
    baseline: Baseline | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Profile":
        """Return the profile in the JSON file `path`: what was saved. Raises ProfileError naming file and field."""
        try:
            content = json.loads(read_bytes(path))
        except (ValueError, RecursionError) as error:
            raise ProfileError(f"{path}: not a profile: invalid JSON ({error})") from error
        try:
            return cls.from_dict(content)
        except ProfileError as error:
            raise ProfileError(f"{path}: not a profile: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile to `path` as JSON, atomically. Raises OnnxShiftError naming the file."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def from_dict(cls, content: Any) -> "Profile":
        """Return the profile that `to_dict` gave. Raises ProfileError naming the field that is missing or wrong."""
        if not isinstance(content, dict):
            raise ProfileError("it holds no JSON object")
        fields = _Fields(content)
        found = fields.take("format", is_number)
        if found not in (None, FORMAT):
            raise ProfileError(f"format {found} is not the one that this version reads, {FORMAT}")
        machine, baseline = fields.inner("machine"), fields.inner("baseline")
        if content.get("variants") is None:
            raise fields.missing("variants")
        return cls(
            fields.each("variants", is_text, _variant),
            dense=fields.take("dense", is_text),
            machine=_machine(machine) if machine else None,
            baseline=_baseline(baseline) if baseline else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values, as they stand in the file."""
        return {
            "format": FORMAT,
            **_present(
                machine=self.machine and self.machine.to_dict(),
                dense=self.dense,
                baseline=self.baseline and self.baseline.to_dict(),
            ),
            "variants": {name: variant.to_dict() for name, variant in self.variants.items()},
        }

    def ranked_by(self, metrics: Sequence[str]) -> "Profile":
        """Return the profile with the first of `metrics` that is a score of all variants as their accuracy."""
        score = next((name for name in metrics if all(name in one.scores for one in self.variants.values())), None)
        if score is None:
            return self
        ranked = {name: replace(one, accuracy=one.scores[score]) for name, one in self.variants.items()}
        return replace(self, variants=ranked)

    def on_provider(self, provider: str | None = None) -> dict[str, Timing]:
        """Return the timings by variant on `provider` (default: the first), of those measured there."""
        first = provider is None or self.machine is None or provider == self.machine.providers[0]
        found = {name: one.timing if first else one.providers.get(str(provider)) for name, one in self.variants.items()}
        return {name: timing for name, timing in found.items() if timing is not None}


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


# --- reading and checking --------------------------------------------------------------------------------------


class _Fields:
    """The fields of a JSON object, checked as they are taken; null counts as missing. `rest` is what nobody took."""

    def __init__(self, content: Mapping[str, Any], place: str = "") -> None:
        self.rest = dict(content)
        self._place = f"{place}." if place else ""

    def take(self, key: str, fits: Callable[[Any], bool]) -> Any:
        value = self.rest.pop(key, None)
        if value is not None and not fits(value):
            raise ProfileError(f"{self._place}{key} is {shorten(repr(value), 60)}")
        return value

    def need(self, key: str, fits: Callable[[Any], bool]) -> Any:
        value = self.take(key, fits)
        if value is None:
            raise self.missing(key)
        return value

    def missing(self, key: str) -> ProfileError:
        return ProfileError(f"{self._place}{key} is missing")

    def inner(self, key: str) -> "_Fields | None":
        value = self.take(key, lambda value: isinstance(value, dict))
        return None if value is None else _Fields(value, f"{self._place}{key}")

    def each(self, key: str, named: Callable[[Any], bool], read: "Callable[[_Fields], T]") -> dict[str, T]:
        """Return every object in the object `key`, read; names are checked by `named`."""
        value = self.take(key, lambda value: isinstance(value, dict) and all(map(named, value))) or {}
        fields = _Fields(value, f"{self._place}{key}")
        return {name: read(inner) for name in value if (inner := fields.inner(name)) is not None}


def _variant(fields: _Fields) -> Variant:
    known = {
        "timing": _timing(fields),
        "file_bytes": fields.need("file_bytes", is_positive),
        **{key: fields.take(key, is_text) for key in ("model_sha256", "structure")},
        **{key: fields.take(key, is_share) for key in ("accuracy", "top5")},
        "scores": fields.take("scores", _shares) or {},
        "accuracy_claimed": fields.take("accuracy_claimed", lambda value: isinstance(value, bool)) or False,
        **{
            key: fields.take(key, is_number)
            for key in ("deflated_bytes", "parameters", "macs", "ratio", "images", "classes", "switch_ms")
        },
        "providers": fields.each("providers", is_text, _timing),
        "cascade": fields.each("cascade", is_text, _cascade),
    }
    return Variant(**known, other=fields.rest)


def _cascade(fields: _Fields) -> Cascade:
    share, accuracy = (fields.need(key, is_share) for key in ("share", "accuracy"))
    return Cascade(fields.need("margin", is_positive), share, accuracy)


def _timing(fields: _Fields) -> Timing:
    latency = fields.each("latency_ms", _batch, _latency)
    if not latency:
        raise fields.missing("latency_ms")
    return Timing(
        {int(batch): found for batch, found in latency.items()},
        {int(batch): found for batch, found in fields.each("speedup", _batch, _speedup).items()},
        fields.take("throughput", is_positive),
        fields.take("memory_mb", is_number),
        fields.take("peak_memory_mb", is_number),
    )


def _latency(fields: _Fields) -> Latency:
    counts = {
        key: found for key in ("spread", "calls", "attempts") if (found := fields.take(key, is_number)) is not None
    }
    return Latency(
        fields.need("p50", is_positive),
        fields.take("p95", is_positive),
        fields.take("p99", is_positive),
        noisy=fields.take("noisy", lambda value: isinstance(value, bool)) or False,
        **_present(**counts),
    )


def _speedup(fields: _Fields) -> Speedup:
    return Speedup(*(fields.need(key, is_number) for key in ("median", "low", "high")))


def _machine(fields: _Fields) -> Machine:
    return Machine(
        processor=fields.need("processor", is_text),
        cores=fields.need("cores", is_number),
        onnxruntime=fields.need("onnxruntime", is_text),
        providers=tuple(fields.need("providers", _texts)),
        threads=fields.need("threads", is_number),
        **{key: fields.take(key, is_text) for key in ("system", "python", "onnx", "date")},
        runtimes=fields.take("runtimes", _names) or {},
    )


def _baseline(fields: _Fields) -> Baseline:
    name, providers = fields.need("name", is_text), fields.each("providers", is_text, _timing)
    return Baseline(name, _timing(fields) if fields.rest.get("latency_ms") is not None else None, providers)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


def _names(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_text, (*value, *value.values())))


def _shares(value: Any) -> bool:
    return isinstance(value, dict) and all(is_text(name) and is_share(share) for name, share in value.items())


def _batch(text: str) -> bool:
    return text.isdecimal() and int(text) > 0
