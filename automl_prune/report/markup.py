"""Small pieces of HTML; every text that passes through them is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.utils import PlotlyJSONEncoder

from automl_prune.report.words import ABSENT


def text(value: object) -> str:
    """Any value as escaped text, safe in content and in quoted attributes."""
    return html.escape(str(value), quote=True)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def paragraph(value: str, kind: str = "") -> str:
    """An escaped paragraph, with a class if given."""
    return f"<p{_class(kind)}>{text(value)}</p>"


def missing(reason: str) -> str:
    """What stands in place of a part that is left out."""
    return paragraph(reason, "missing")


def section(identifier: str, title: str, *parts: str) -> str:
    """A titled section; ``parts`` are HTML already."""
    body = "\n".join(part for part in parts if part)
    head = f'<h2 id="{identifier}-title">{text(title)}</h2>'
    return f'<section id="{identifier}" aria-labelledby="{identifier}-title">\n{head}\n{body}\n</section>'


@dataclass(frozen=True, slots=True)
class Cell:
    """One table cell: what is shown, what it sorts by (numbers sort as numbers), and how it is set.

    Attributes:
        shown: Text, escaped when rendered.
        key: Sorting value; the text itself where it is None. The empty string sorts last.
        kind: ``"number"``, ``"text"`` (long, may wrap) or nothing.
        opens: Number of the trial whose card a click on the text opens, if any.
    """

    shown: str
    key: float | str | None = None
    kind: str = ""
    opens: int | None = None

    def render(self, tag: str = "td") -> str:
        """The cell's HTML."""
        key = "" if self.key is None else f' data-value="{text(self.key)}"'
        scope = ' scope="row"' if tag == "th" else ""
        shown = text(self.shown)
        if self.opens is not None:
            shown = f'<button type="button" class="opens" data-trial="{self.opens}">{shown}</button>'
        return f"<{tag}{scope}{_class(self.kind)}{key}>{shown}</{tag}>"


def number(value: float | None, shown: str | None = None) -> Cell:
    """A number's cell: sorted by its full precision; an absent one is a dash and sorts last."""
    if value is None:
        return Cell(ABSENT, "", "number")
    return Cell(f"{value:,}".replace(",", " ") if shown is None else shown, value, "number")


@dataclass(frozen=True, slots=True)
class Row:
    """A table row: its cells, the first of which heads it, and a class if any."""

    cells: Sequence[Cell]
    kind: str = ""

    def render(self) -> str:
        """The row's HTML."""
        first, *rest = self.cells
        return f"<tr{_class(self.kind)}>{first.render('th')}{''.join(cell.render() for cell in rest)}</tr>"


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Row], *, sortable: bool = False, tall: bool = False
) -> str:
    """A table that scrolls inside its own box; columns are right-aligned where their first cell is a number.

    Args:
        caption: Names the table for those who cannot see what is around it.
        heads: Column titles.
        rows: At least one.
        sortable: Whether column titles are buttons that sort.
        tall: Whether the box is limited in height.
    """
    numeric = [cell.kind == "number" for cell in rows[0].cells]
    titles = [f'<button type="button">{text(head)}</button>' if sortable else text(head) for head in heads]
    cells = (
        f'<th scope="col"{_class("number" if right else "")}>{title}</th>'
        for title, right in zip(titles, numeric, strict=True)
    )
    name = f'aria-label="{text(caption)}"'
    body = "\n".join(row.render() for row in rows)
    return (
        f'<div{_class("scroll tall" if tall else "scroll")} tabindex="0" role="region" {name}>\n'
        f"<table{_class('sortable' if sortable else '')} {name}>\n"
        f"<thead><tr>{''.join(cells)}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def figure(identifier: str, drawing: go.Figure, caption: str, *, wide: bool = False) -> str:
    """A figure with its caption, which is also its text alternative; the page keeps room and its script draws it there.

    Args:
        identifier: Unique on the page.
        drawing: A plotly figure.
        caption: What there is to see, in words and numbers.
        wide: Whether it keeps a minimum width and scrolls on narrow screens.
    """
    return (
        f"<figure>\n<div{_class('wide' if wide else '')}>"
        f'<div class="plot" id="{identifier}" style="min-height: {drawing.layout.height}px" role="img" '
        f'aria-label="{text(caption)}"></div></div>\n'
        f"<figcaption>{text(caption)}</figcaption>\n"
        + _script(drawing.to_json(), f'data-figure="{identifier}"')
        + "\n</figure>"
    )


def json_script(content: object, identifier: str) -> str:
    """Data for the page's scripts, in an element of that identifier."""
    return _script(json.dumps(content, separators=(",", ":"), cls=PlotlyJSONEncoder), f'id="{identifier}"')


def _script(content: str, attribute: str) -> str:
    # JSON may hold "</script>"; inside JSON strings the escaped form means the same.
    content = content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" {attribute}>{content}</script>'


def command(purpose: str, line: str) -> str:
    """A command to copy, under what it is for."""
    return (
        f'<div class="command">\n<h3>{text(purpose)}</h3>\n'
        f'<button type="button" class="copy" aria-label="Copy: {text(purpose)}">copy</button>\n'
        f'<pre tabindex="0"><code>{text(line)}</code></pre>\n</div>'
    )
