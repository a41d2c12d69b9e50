"""Two models on the same inputs in one runtime: what they put out is measured, then judged by all inputs together."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnx_shift.onnx_pruner.engines.engine import CannotRunError
from onnx_shift.onnx_pruner.verification.difference import (
    Excess,
    Measure,
    excesses,
    is_float,
    measure,
    rounding_unit,
)
from onnx_shift.onnx_pruner.verification.engines import Array, Feeds, Infer, Outputs, Source, opened
from onnx_shift.onnx_pruner.verification.probes import Case, Domain, cases
from onnx_shift.onnx_pruner.verification.rounding import other_ways
from onnx_shift.onnx_pruner.verification.selection import Selection, computed, find_selection, tail

#: Share of an integer output's elements that may flip: rounding decides near-ties of ArgMax and its kind.
FLIPPED_SHARE = 1e-3
#: How much larger than what rounding does to the original a difference may be.
_SLACK = 10
_NOTHING = Measure(False, False, math.inf, 1.0, (), ())  # of a sequence that has more elements in one model

Part = tuple[str, int]  # an output or a tensor that a selection reads, and which element of it


@dataclass(frozen=True)
class Pair:
    """Two models to compare in a runtime, and how close they have to be.

    `unread`: tensors of which some channels may hold anything, since nothing reads them.
    """

    runtime: str
    original: Source
    other: Source
    folder: str
    domain: Domain
    seed: int
    tolerance: float
    rounding: float
    unread: Collection[str] = ()


@dataclass
class Watched:
    """All that was measured of one part, in the order of the inputs."""

    rounding: float
    tolerance: float
    cases: list[Case] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    moves: float = 0.0  # how far it moved from the first input, in tolerances


@dataclass(frozen=True)
class Judgement:
    """Whether the models agree; the worst difference and what it was held to, over the scale of its channel."""

    reason: str
    difference: float
    allowed: float
    inputs: int
    moves: float | None  # the most any part moved, in tolerances; None when few inputs were tried
    notes: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()


def watched_tensors(original: Source, other: Source, unread: Collection[str]) -> dict[str, str]:
    """Return the tensors that selections of both models read, with the operator, that are computed and compared."""
    here, there = find_selection(original.graph).reads, find_selection(other.graph).reads
    outputs = {value.name for value in original.graph.output}
    own = computed(original.graph) & computed(other.graph)
    return {
        name: kind
        for name, kind in here.items()
        if there.get(name) == kind and name in own and name not in outputs and name not in unread
    }


def judge(pair: Pair, run: Infer, watched: Mapping[str, str], *, few: bool) -> Judgement:
    """Infer both models on every input and judge what they put out; `run` is the original with `watched` put out."""
    names = [value.name for value in pair.original.graph.output] + list(watched)
    parts: dict[Part, Watched] = {}
    first: dict[Part, Array] = {}
    reduced = few
    inputs = 0
    try:
        run_other = opened(pair.runtime, replace(pair.other, watched=tuple(watched)), pair.folder)
        for case, feeds, left in cases(run, pair.domain, pair.seed, few=few):
            inputs += 1
            reduced |= case.few
            for part, x, y in _side_by_side(names, left, run_other(feeds)):
                found = parts.setdefault(part, _watch(pair, x))
                found.cases.append(case)
                found.measures.append(_NOTHING if x is None or y is None else measure(x, y))
                if x is not None:
                    moved = measure(first.setdefault(part, x), x)
                    far = moved.difference / moved.scale if moved.difference < math.inf else 0.0
                    found.moves = max(found.moves, far / found.tolerance)
    except CannotRunError as error:
        return Judgement(f"the second model cannot be run: {error}", math.inf, pair.tolerance, inputs, None)
    for name in watched:
        if any(one.measures and _reshaped(one) for part, one in parts.items() if part[0] == name):
            parts = {part: one for part, one in parts.items() if part[0] != name}
    moves = max((one.moves for one in parts.values()), default=math.inf)
    verdict = _Verdict(pair, names, watched, parts)
    return replace(verdict.judgement(), inputs=inputs, moves=None if reduced else moves)


def _reshaped(one: Watched) -> bool:
    """Whether the other model's tensor has another shape: it lost channels, and cannot be compared."""
    return any(measured.reshaped for measured in one.measures)


def _watch(pair: Pair, x: Array | None) -> Watched:
    floating = x is not None and is_float(x)
    unit = rounding_unit(x) if x is not None and floating else 0.0
    return Watched(max(pair.rounding, unit), max(pair.tolerance, unit) if floating else FLIPPED_SHARE)


def _side_by_side(
    names: Sequence[str], left: Outputs, right: Outputs
) -> Iterator[tuple[Part, Array | None, Array | None]]:
    """Yield each tensor of two runs side by side; None where one of them has no such tensor."""
    for name, xs, ys in zip(names, left, right, strict=True):
        for index in range(max(len(xs), len(ys))):
            yield (name, index), xs[index] if index < len(xs) else None, ys[index] if index < len(ys) else None


class _Verdict:
    """The judgement of measured parts: differences beyond the tolerance are looked into before they count."""

    def __init__(
        self, pair: Pair, names: Sequence[str], watched: Mapping[str, str], parts: Mapping[Part, Watched]
    ) -> None:
        self._pair = pair
        self._names = names
        self._watched = watched
        self._parts = parts
        self._selection: Selection = find_selection(pair.original.graph)
        self._notes: dict[str, None] = {}
        self._untold: dict[str, None] = {}

    def judgement(self) -> Judgement:
        held = {part: excesses(one.measures, one.tolerance, one.rounding) for part, one in self._parts.items()}
        if any(_fails(found) for found in held.values()):
            held = self._looked_into(held)
        worst, part = Excess(0.0, 0.0, self._pair.tolerance), None
        for name, found in held.items():
            for one in found:
                if one.ratio > worst.ratio:
                    worst, part = one, name
        reason = self._reason(part, worst) if part is not None and worst.ratio > 1 else ""
        return Judgement(reason, worst.difference, worst.allowed, 0, None, tuple(self._notes), tuple(self._untold))

    def _reason(self, part: Part, worst: Excess) -> str:
        name = part[0]
        what = f"output {name!r}" if name not in self._watched else f"what {self._watched[name]} reads, {name!r},"
        if math.isinf(worst.difference):
            return f"{what} differs in shape, in type or in where it is finite"
        return f"{what} differs by {worst.difference:.1e} of its scale where {worst.allowed:.0e} is allowed"

    def _looked_into(self, held: dict[Part, list[Excess]]) -> dict[Part, list[Excess]]:
        """Hold what fails to what the original itself varies; leave out what it varies without bounds."""
        failing = {part for part, found in held.items() if _fails(found)}
        at = {part: [case for case, excess in zip(self._parts[part].cases, held[part], strict=True) if excess.ratio > 1]
              for part in failing}  # fmt: skip
        own, again = self._own_variation(failing, sorted(set().union(*at.values()), key=lambda case: case.index))
        for part in failing:
            one = self._parts[part]
            if _fails(self._hold(one, again.get(part, {}), slack=1.0, only_own=True)):
                self._untold |= {part[0]: None} if part[0] not in self._watched else {}
                del held[part]
                continue
            if part[0] in self._selection.decided:
                if self._same_selected(part, at[part]) or not _fails(self._hold(one, own[part])):
                    self._note_flips(part[0])
                    del held[part]
                continue
            finite = {case: [m for m in found if m.difference < math.inf] for case, found in own[part].items()}
            held[part] = self._hold(one, finite)
        return held

    def _hold(
        self, one: Watched, own: Mapping[Case, list[Measure]], slack: float = _SLACK, only_own: bool = False
    ) -> list[Excess]:
        if only_own:
            measures = [m for found in own.values() for m in found]
            return excesses(measures, one.tolerance, one.rounding)
        return excesses(one.measures, one.tolerance, one.rounding, [own.get(case, []) for case in one.cases], slack)

    def _note_flips(self, name: str) -> None:
        kind = self._selection.decided[name]
        self._notes[
            f"output {name!r} is decided by {kind}: selections flip on near-ties under any rounding, "
            "between onnxruntime's optimisation levels too; what they read is equal"
        ] = None

    def _own_variation(
        self, parts: Collection[Part], wanted: Sequence[Case]
    ) -> tuple[dict[Part, dict[Case, list[Measure]]], dict[Part, dict[Case, list[Measure]]]]:
        """Return how far the original moves when it is computed in other ways, and when it is but run again."""
        pair = self._pair
        names = {name for name, _ in parts}
        source = replace(pair.original, watched=tuple(self._watched) if names & self._watched.keys() else ())
        run = opened(pair.runtime, source, pair.folder)
        left = {case: run(pair.domain.feeds(case, pair.seed)) for case in wanted}
        own: dict[Part, dict[Case, list[Measure]]] = {part: {case: [] for case in wanted} for part in parts}
        again: dict[Part, dict[Case, list[Measure]]] = {part: {case: [] for case in wanted} for part in parts}
        self._add(again, run, left)
        for other in other_ways(pair.runtime, source, pair.folder):
            self._add(own, other, left)
        return own, again

    def _add(self, found: dict[Part, dict[Case, list[Measure]]], run: Infer, left: Mapping[Case, Outputs]) -> None:
        for case, outputs in left.items():
            try:
                right = run(self._pair.domain.feeds(case, self._pair.seed))
            except CannotRunError:
                continue
            for part, x, y in _side_by_side(self._names[: len(outputs)], outputs, right):
                if part in found:
                    found[part][case].append(_NOTHING if x is None or y is None else measure(x, y))

    def _same_selected(self, part: Part, wanted: Sequence[Case]) -> bool:
        """Whether both models select the same from the very same numbers, and these are equal but for rounding."""
        pair = self._pair
        both = computed(pair.original.graph) & computed(pair.other.graph)
        enters = tuple(name for name in self._selection.enters if name in both)
        try:
            runs = [opened(pair.runtime, replace(source, watched=enters), pair.folder) for source in self._models()]
            for case in wanted:
                feeds = pair.domain.feeds(case, pair.seed)
                outputs = [run(feeds) for run in runs]
                given = self._given(enters, *outputs)
                if not given:
                    return False
                results = [self._tail(source, part[0], given, feeds) for source in self._models()]
                for _, x, y in _side_by_side([part[0]], *results):
                    if x is None or y is None:
                        return False
                    measured, floating = measure(x, y), is_float(x)
                    if measured.difference > (pair.tolerance * measured.scale if floating else 0.0):
                        return False
        except (CannotRunError, KeyError):
            return False
        return True

    def _models(self) -> tuple[Source, Source]:
        return self._pair.original, self._pair.other

    def _given(self, enters: Sequence[str], left: Outputs, right: Outputs) -> dict[str, Array]:
        """Return the tensors that enter where selections decide, as the original has them, if both agree on them."""
        given: dict[str, Array] = {}
        skip = len(left) - len(enters)
        for name, xs, ys in zip(enters, left[skip:], right[skip:], strict=True):
            if len(xs) != 1 or len(ys) != 1 or xs[0].dtype == object or xs[0].shape != ys[0].shape:
                continue
            measured = measure(xs[0], ys[0])
            allowed = self._pair.tolerance * measured.scale if is_float(xs[0]) else FLIPPED_SHARE
            if measured.difference > allowed and name not in self._pair.unread:
                return {}
            given[name] = xs[0]
        return given

    def _tail(self, source: Source, output: str, given: Mapping[str, Array], feeds: Feeds) -> Outputs:
        model = tail(source.model, [output], given)
        run = opened(self._pair.runtime, source.changed(model), self._pair.folder)
        everything = {**feeds, **given}
        return run({value.name: everything[value.name] for value in model.graph.input})


def _fails(found: Sequence[Excess]) -> bool:
    return any(one.ratio > 1 for one in found)
