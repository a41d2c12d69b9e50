"""Tables of the report in HTML, each with the same figures as CSV to download."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

Cell = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column: its title for people, its key in the CSV, how a row is read, and how a value is shown.

    `words` is for columns of text, which break into lines; the first column names the row.
    """

    title: str
    key: str
    read: Callable[[Any], Cell]
    show: Callable[[Any], str] = str
    words: bool = False

    def shown(self, row: Any) -> str:
        value = self.read(row)
        return "–" if value is None else escape(self.show(value))


def table(columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Return a table that scrolls sideways where it finds no room; columns without any value are left out."""
    used = [column for column in columns if any(column.read(row) is not None for row in rows)]
    head = "".join(f'<th scope="col"{_class(column)}>{escape(column.title)}</th>' for column in used)
    body = "".join(
        f'<tr><th scope="row">{used[0].shown(row)}</th>'
        + "".join(f"<td{_class(column)}>{column.shown(row)}</td>" for column in used[1:])
        + "</tr>"
        for row in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded_table(name: str, columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Return the table behind a fold, with its CSV `name`.csv."""
    return f"<details><summary>Table</summary>{table(columns, rows)}{download(name, columns, rows)}</details>"


def download(name: str, columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Return a link that saves the rows as `name`.csv; the figures are in the link, nothing is fetched."""
    lines: list[list[Cell]] = [[column.key for column in columns]]
    lines += [[column.read(row) for column in columns] for row in rows]
    text = "\r\n".join(",".join(_csv(cell) for cell in line) for line in lines) + "\r\n"
    return (
        f'<a class="download" download="{name}.csv" href="data:text/csv;charset=utf-8,{quote(text)}">'
        f"Download {name}.csv</a>"
    )


def _class(column: Column) -> str:
    return ' class="words"' if column.words else ""


def _csv(cell: Cell) -> str:
    text = "" if cell is None else f"{cell:.10g}" if isinstance(cell, float) else str(cell)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\r\n') else text
