"""Charts as inline SVG: no library, no network, colours from the page's style sheet so that themes work.

Every mark that carries a figure can be focused and is labelled in words; the page's script shows the same
words as a tooltip. Coordinates are those of the viewBox; the page scales the drawing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os.path import commonprefix

_Box = tuple[float, float, float, float]  # left, top, right, bottom

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 46
_LETTER = 8.6  # width of a label's letter where it is largest, on a phone
_LONGEST = 20  # letters of a name; of a longer one those are shown in which it differs from the others


@dataclass(frozen=True)
class Point:
    """One mark of a scatter chart: a dot, or a diamond for the dense model; hollow where it was dropped."""

    name: str
    x: float
    y: float
    words: str
    dense: bool = False
    dropped: bool = False

    @property
    def kind(self) -> str:
        """Its classes of the style sheet."""
        return "point" + " dense" * self.dense + " dropped" * self.dropped


@dataclass(frozen=True)
class Line:
    """A line through (x, y), drawn as steps where `steps`; `kind` is a class of the style sheet."""

    points: Sequence[tuple[float, float]]
    kind: str
    steps: bool = False


@dataclass(frozen=True)
class Axis:
    """How values become positions: `low`..`high`, logarithmic or not, and the ticks to label."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def cost_axis(title: str, values: Sequence[float], show: Callable[[float], str]) -> Axis:
    """An axis for positive costs: logarithmic where they span more than a factor of 6."""
    low, high = min(values), max(values)
    if high / low <= 6:
        return linear_axis(title, [0.0, high], show)
    low, high = low / 1.25, high * 1.25
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    return Axis(title, low, high, [(tick, show(tick)) for tick in ticks if low <= tick <= high], True)


def linear_axis(title: str, values: Sequence[float], show: Callable[[float], str]) -> Axis:
    """An axis from just below the smallest to just above the largest value, with round ticks."""
    low, high = min(values), max(values)
    if high == low:
        high = low + (abs(low) or 1)
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 7)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    count = round((high - low) / step)
    return Axis(title, low, high, [(low + n * step, show(low + n * step)) for n in range(count + 1)])


def scatter(title: str, x: Axis, y: Axis, points: Sequence[Point], front: Sequence[tuple[float, float]]) -> str:
    """Points, named unless dropped (the dense model always), over the step line of the Pareto front."""
    frame = _Frame(x, y, 460, 330)
    marks = [frame.steps(front, "front", close=True)]
    short = _shortened([point.name for point in points])
    places = [frame.place(point.x, point.y) for point in points]
    taken: list[_Box] = [(left - 7, top - 7, left + 7, top + 7) for left, top in places]
    for point in sorted(points, key=lambda point: point.dropped, reverse=True):
        left, top = frame.place(point.x, point.y)
        words = escape(point.words, quote=True)
        label = ""
        if point.dense or not point.dropped:
            label = _label(short[point.name], left, top, frame, taken)
        marks.append(
            f'<g class="{point.kind}" tabindex="0" role="img" aria-label="{words}" data-tip="{words}">'
            f"{_shape(point, left, top)}{label}</g>"
        )
    return frame.svg(title, marks)


def pareto_front(costs: Mapping[str, float], accuracy: Mapping[str, float]) -> list[tuple[float, float]]:
    """Return (cost, accuracy) of those that no other beats in one without losing in the other, cheapest first."""
    points = {(cost, accuracy[name]) for name, cost in costs.items()}
    return sorted(p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points))


def left_margin(names: Sequence[str]) -> int:
    """Return the room that a chart needs on its left for `names`, shortened as it draws them, and for numbers."""
    return round(12 + _LETTER * max(map(len, [*_shortened(names).values(), "10,000"])))


def lines(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Line],
    marks: Sequence[tuple[float, str]] = (),
    *,
    left: int = _LEFT,
) -> str:
    """Lines over a common axis, drawn for a wide page and for a phone, of which the style sheet shows one.

    `marks` are moments in words, drawn as ticks on the lower edge.
    """
    widths = {"wide": 760, "narrow": 390}
    return "".join(_lines(title, _Frame(x, y, width, 190, left), series, marks, kind) for kind, width in widths.items())


def _lines(title: str, frame: "_Frame", series: Sequence[Line], marks: Sequence[tuple[float, str]], kind: str) -> str:
    drawn = []
    for moment, words in marks:
        across, bottom = frame.place(moment, frame.y.low)
        label = escape(words, quote=True)
        drawn.append(
            f'<g class="moment" tabindex="0" role="img" aria-label="{label}" data-tip="{label}">'
            f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>'
            f'<circle cx="{across:.1f}" cy="{bottom:.1f}" r="5"/></g>'
        )
    drawn += [(frame.steps if line.steps else frame.polyline)(line.points, line.kind) for line in series]
    return frame.svg(title, drawn, kind)


class _Frame:
    """The plotting area between two axes."""

    def __init__(self, x: Axis, y: Axis, width: int, height: int, left: int = _LEFT) -> None:
        self.x, self.y, self.width, self.height, self.left = x, y, width, height, left

    def place(self, x: float, y: float) -> tuple[float, float]:
        return (
            self.left + self.x.share(x) * (self.width - self.left - _RIGHT),
            self.height - _BOTTOM - self.y.share(y) * (self.height - _TOP - _BOTTOM),
        )

    def polyline(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        placed = (self.place(*point) for point in points)
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in placed)
        return f'<polyline class="line {kind}" points="{path}"/>'

    def steps(self, points: Sequence[tuple[float, float]], kind: str, close: bool = False) -> str:
        corners: list[tuple[float, float]] = []
        for point in points:
            if corners:
                corners.append((point[0], corners[-1][1]))
            corners.append(point)
        if close and corners:  # what costs more than the last point is no better
            corners.append((self.x.high, corners[-1][1]))
        return self.polyline(corners, kind)

    def svg(self, title: str, marks: Sequence[str], kind: str = "") -> str:
        bottom, right = self.height - _BOTTOM, self.width - _RIGHT
        parts = []
        for value, text in self.x.ticks:
            left, _ = self.place(value, self.y.low)
            parts.append(f'<line class="grid" x1="{left:.1f}" x2="{left:.1f}" y1="{_TOP}" y2="{bottom}"/>')
            parts.append(_text("tick", left, bottom + 17, "middle", text))
        short = _shortened([text for _, text in self.y.ticks])
        for value, text in self.y.ticks:
            _, top = self.place(self.x.low, value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{right}" y1="{top:.1f}" y2="{top:.1f}"/>')
            label = _text("tick", self.left - 7, top + 4, "end", short[text])
            parts.append(label if short[text] == text else f"<g><title>{escape(text)}</title>{label}</g>")
        parts.append(_text("axis", right, self.height - 8, "end", self.x.title))
        label = escape(title, quote=True)
        chosen = f' class="{kind}"' if kind else ""
        opening = f'<svg{chosen} viewBox="0 0 {self.width} {self.height}" role="group" aria-label="{label}">'
        return "".join([opening, *parts, *marks, "</svg>"])


def _text(kind: str, x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _shortened(names: Sequence[str]) -> dict[str, str]:
    """Return each name with what is shown of it: of long ones the part around the first letter that differs."""
    shared = len(commonprefix([name for name in names if len(name) > _LONGEST]))  # noqa: RUF071 (letters are meant)
    return {name: _part(name, shared - _LONGEST // 2) for name in names}


def _part(name: str, start: int) -> str:
    if len(name) <= _LONGEST:
        return name
    start = max(0, min(start, len(name) - _LONGEST + 1))
    end = start + _LONGEST - 1 - (start > 0)
    return "…" * (start > 0) + name[start:end] + "…" * (end < len(name))


def _shape(point: Point, left: float, top: float) -> str:
    if point.dense:
        size = 7
        corners = [(left, top - size), (left + size, top), (left, top + size), (left - size, top)]
        return f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>'
    return f'<circle cx="{left:.1f}" cy="{top:.1f}" r="{5 if point.dropped else 6}"/>'


def _label(name: str, left: float, top: float, frame: _Frame, taken: list[_Box]) -> str:
    """The name beside its point, wherever it covers neither a point nor another name; else nothing."""
    width = 7.2 * len(name)
    for x, y, anchor in (
        (left + 11, top + 13, "start"),
        (left - 11, top - 6, "end"),
        (left + 11, top + 4, "start"),
        (left - 11, top + 4, "end"),
        (left, top + 23, "middle"),
        (left, top - 13, "middle"),
        (left + 11, top - 6, "start"),
        (left - 11, top + 17, "end"),
        (left - 11, top - 20, "end"),
        (left + 11, top + 27, "start"),
    ):
        start = x - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        box = (start, y - 11, start + width, y + 4)
        inside = start > _LEFT and box[2] < frame.width and box[1] > _TOP and box[3] < frame.height - _BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return _text("name", x, y, anchor, name)
    return ""


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
