"""Tables of the report in HTML, each with the same figures as CSV to download."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

Cell = str | int | float | None


_LONG = 24  # letters of a row's name beyond which it breaks into lines


@dataclass(frozen=True)
class Column:
    """A column: its title for people, its key in the CSV, how a row is read, and how a value is shown.

    `text` shows the whole row where the value alone does not say it. `words` is for columns of text, which break
    into lines; without `in_table` a column is in the CSV alone. The first column names the row.
    """

    title: str
    key: str
    read: Callable[[Any], Cell]
    show: Callable[[Any], str] = str
    words: bool = False
    text: Callable[[Any], str] | None = None
    in_table: bool = True

    def shown(self, row: Any) -> str:
        value = self.read(row)
        if value is None:
            return "–"
        return escape(self.text(row) if self.text else self.show(value))


def table(title: str, columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Return a table that scrolls sideways where it finds no room; columns without any value are left out."""
    used = [column for column in columns if column.in_table and any(column.read(row) is not None for row in rows)]
    head = "".join(f'<th scope="col"{_class(column)}>{escape(column.title)}</th>' for column in used)
    body = "".join(
        f"<tr>{_row_name(used[0].shown(row))}"
        + "".join(f"<td{_class(column)}>{column.shown(row)}</td>" for column in used[1:])
        + "</tr>"
        for row in rows
    )
    return scrolling(
        "div",
        f"Table: {title}",
        f'<table aria-label="{escape(title, quote=True)}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>',
    )


def scrolling(tag: str, title: str, content: str) -> str:
    """Return `content` in a group that scrolls sideways; the page's script shows the hint where it does."""
    return (
        '<p class="hint" hidden>Scroll sideways to see the rest →</p>'
        f'<{tag} class="scroll" tabindex="0" role="group" aria-label="{escape(title, quote=True)}">{content}</{tag}>'
    )


def folded_table(name: str, title: str, columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Return the table behind a fold, with its CSV `name`.csv."""
    return folded(title, table(title, columns, rows) + download(name, columns, rows))


def folded(title: str, content: str) -> str:
    """Return `content` behind a fold that says what it holds."""
    return f"<details><summary>Table: {escape(title)}</summary>{content}</details>"


def download(name: str, columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Return a link that saves the rows as `name`.csv; the figures are in the link, nothing is fetched."""
    lines: list[list[Cell]] = [[column.key for column in columns]]
    lines += [[column.read(row) for column in columns] for row in rows]
    text = "\r\n".join(",".join(_csv(cell) for cell in line) for line in lines) + "\r\n"
    return (
        f'<a class="download" download="{name}.csv" href="data:text/csv;charset=utf-8,{quote(text)}">'
        f"Download {name}.csv</a>"
    )


def _row_name(name: str) -> str:
    return f'<th scope="row"{" class=long" if len(name) > _LONG else ""}>{name}</th>'


def _class(column: Column) -> str:
    return ' class="words"' if column.words else ""


def _csv(cell: Cell) -> str:
    text = "" if cell is None else f"{cell:.10g}" if isinstance(cell, float) else str(cell)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\r\n') else text
