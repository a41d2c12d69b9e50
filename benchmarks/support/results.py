"""From docs/results/*.json to text: the results page, and the marked places in README.md and docs.

A place is marked by comments, and whatever stands between them is replaced:

    <!-- results NAME -->            the table of docs/results/NAME.json
    <!-- end -->
    <!-- figure NAME KEY FORMAT -->5.14<!-- end -->     one figure, with Python's format, inside a sentence
"""

import json
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
PAGE = RESULTS / "README.md"
TARGETS = ROOT / "benchmarks" / "targets.toml"

Result = dict[str, Any]

_HEAD = """# Results

Every table and picture here is made by `make bench` and nothing is edited by hand; the raw figures are the JSON
files beside this page. `.venv/bin/python -m benchmarks NAME` runs one again, `--again` even if nothing has changed.
Times are measured side by side in interleaved rounds: compare ratios, not milliseconds of different machines.
"""
_TABLE = re.compile(r"(<!-- results (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIGURE = re.compile(r"(<!-- figure (\S+) (\S+) (\S+) -->).*?(<!-- end -->)", re.DOTALL)


def read_results() -> dict[str, Result]:
    """Return what docs/results holds, by name of the benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def results_page(results: Mapping[str, Result]) -> str:
    """Return docs/results/README.md."""
    parts = [_HEAD]
    targets = read_targets()
    for name, result in results.items():
        machine = result["machine"]
        parts.append(f"## {result['title']}\n")
        if (RESULTS / f"{name}.png").exists():
            parts.append(f"![{result['title']}]({name}.png)\n")
        for caption, rows in tables_of(result).items():
            parts += [f"{caption}:\n"] if caption else []
            parts.append(markdown_table(rows))
        parts += [f"{note}\n" for note in result["notes"]]
        checks = check_targets(result["figures"], targets.get(name, {}))
        if checks:
            parts.append("Targets: " + "; ".join(text for _, text in checks) + ".\n")
        spread = result.get("spread", {})
        if spread:
            stated = (f"{key} {low:.3g}–{high:.3g}" for key, (low, high) in spread.items())
            parts.append(f"Spread over the rounds: {'; '.join(stated)}.\n")
        versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
        parts.append(
            f"*{result['date']}, {machine['processor']}, {machine['cores']} cores, Python {machine['python']}, "
            f"{versions}; {result['minutes']:.1f} minutes; [{name}.json]({name}.json); "
            f"`python -m benchmarks {name}`.*\n"
        )
    return "\n".join(parts)


def filled(text: str, results: Mapping[str, Result]) -> str:
    """Return `text` with every marked place filled; KeyError where a place names what no result holds."""

    def figure(match: re.Match[str]) -> str:
        opening, name, key, how, closing = match.groups()
        return f"{opening}{results[name]['figures'][key]:{how}}{closing}"

    text = _TABLE.sub(lambda match: f"{match[1]}{markdown_table(results[match[2]]['rows'])}{match[3]}", text)
    return _FIGURE.sub(figure, text)


def tables_of(result: Result) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return a result's tables by caption, the main one, which has none, first."""
    return {"": result["rows"], **result.get("tables", {})}


def range_of(values: Iterable[float]) -> tuple[float, float]:
    """Return the lowest and the highest of a figure's rounds: its spread, within which a second run should lie."""
    found = [float(value) for value in values]
    return min(found), max(found)


def in_words(values: Iterable[float]) -> str:
    """Return the median of a figure's rounds and, in brackets, their range."""
    found = [float(value) for value in values]
    return shown_range(statistics.median(found), *range_of(found))


def shown_range(middle: float, low: float, high: float) -> str:
    """Return a median with the range of its rounds in brackets, in as many digits as tell them apart."""
    digits = 2 if middle < 10 else 1
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def documents() -> list[Path]:
    """README.md and the pages of docs, those that may hold marked places."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `rows` as a table, columns in order of first appearance, numbers to the right."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = [all(not isinstance(row.get(column), str) for row in rows) for column in columns]
    lines = [columns, ["---:" if right else "---" for right in numeric]]
    lines += [[_shown(row.get(column)) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def read_targets() -> dict[str, dict[str, Any]]:
    """Return targets.toml: benchmark -> figure -> {at_least or at_most: number}."""
    with TARGETS.open("rb") as file:
        return tomllib.load(file)


def check_targets(figures: Mapping[str, float], targets: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """Return for each target whether it is met, and in words."""
    checks = []
    for key, target in targets.items():
        (how, bound), value = next(iter(target.items())), figures.get(key)
        met = value is not None and (value >= bound if how == "at_least" else value <= bound)
        word = "met" if met else "MISSED"
        shown = "not measured" if value is None else _shown(value)
        checks.append((met, f"{key} {shown}, {how.replace('_', ' ')} {bound:g}: {word}"))
    return checks


def repeated(figures: Mapping[str, float], before: Mapping[str, Sequence[float]]) -> list[str]:
    """Return for each figure whether it lies within the spread that the run before stated."""
    lines = []
    for key, (low, high) in before.items():
        value = figures.get(key)
        if value is not None:
            word = "within" if low <= value <= high else "OUTSIDE"
            lines.append(f"{key} {value:.3g}: {word} {low:.3g}–{high:.3g}, the spread of the run before")
    return lines


def write_all() -> None:
    """Bring docs/results/README.md and all marked places up to date."""
    results = read_results()
    PAGE.write_text(results_page(results))
    for path in documents():
        text = path.read_text()
        new = filled(text, results)
        if new != text:
            path.write_text(new)
            sys.stdout.write(f"filled {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    write_all()
