"""HTML as text: elements, tables, figures. Every attribute is escaped here; text goes through `text`."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
"""Elements without content and without an end."""


def text(value: object) -> str:
    """Any value as text that is safe between tags."""
    return html.escape(str(value), quote=False)


def tag(element: str, /, *children: str, **attributes: object) -> str:
    """An element.

    Args:
        element: Its name.
        *children: HTML, as it is.
        **attributes: Escaped; ``class_`` stands for ``class``, ``stroke_width`` for ``stroke-width``; None leaves one out, True writes
            it without a value.
    """
    parts = [element]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{html.escape(_plain(value))}"')
    start = f"<{' '.join(parts)}>"
    return start if element in VOID else f"{start}{''.join(children)}</{element}>"


def _plain(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def number(value: float, digits: int = 3, *, unit: str = "") -> str:
    """A number for people; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}{' ' + unit if unit else ''}"


def figures(value: float, digits: int = 3) -> str:
    """A number to some significant digits, without powers of ten as long as it can be read so."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        decimals = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
        return f"{value:.{max(0, decimals)}f}" if decimals <= 0 else f"{value:.{decimals}f}".rstrip("0").rstrip(".")
    return f"{value:.{digits}g}"


def p_value(value: float) -> str:
    """A p-value: three decimals, or that it is smaller."""
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Seconds in the unit that gives a readable number."""
    if not math.isfinite(seconds):
        return "–"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def count(n: int, one: str, many: str = "") -> str:
    """``1 case``, ``3 cases``."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def short_name(candidate: str) -> str:
    """A candidate's name without the words that most of them share: ``2d__Trainer + 3d_fullres__Trainer`` -> ``2d + 3d_fullres``."""
    members = [[word for word in member.split("__") if word] for member in candidate.split(" + ")]
    return " + ".join(" · ".join(words[:1] + [word for word in words[1:] if word != "Trainer"]) for words in members)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "", numeric: Sequence[int] = (), name: str = "", kind: str = ""
) -> str:
    """A table that scrolls inside its own box where the page is too narrow.

    Args:
        head: HTML of the column heads.
        rows: HTML of the cells; the first of each row is its head.
        caption: HTML; what the table shows, read aloud before it.
        numeric: Columns set to the right.
        name: What the scrolling box is called.
        kind: Class of the table.
    """
    kinds = ["num" if column in numeric else None for column in range(len(head))]
    heads = tag("tr", *(tag("th", cell, scope="col", class_=kind) for cell, kind in zip(head, kinds, strict=True)))
    body = []
    for row in rows:
        first, *rest = row
        cells = [tag("th", first, scope="row", class_=kinds[0])]
        cells += [tag("td", cell, class_=kind) for cell, kind in zip(rest, kinds[1:], strict=True)]
        body.append(tag("tr", *cells))
    whole = tag("table", tag("caption", caption) if caption else "", tag("thead", heads), tag("tbody", *body), class_=kind or None)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=name or "table")


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names and values; values are HTML."""
    return tag("dl", *(tag("div", tag("dt", text(name)), tag("dd", value)) for name, value in pairs), class_="facts")


def details(summary: str, content: str, *, is_open: bool = False) -> str:
    """What is shown on demand; summary and content are HTML."""
    return tag("details", tag("summary", summary), content, open=is_open)


def section(name: str, title: str, *content: str, lead: str = "") -> str:
    """A section of the page; `lead` is a sentence of HTML below its title."""
    head = tag("h2", text(title), id=f"{name}-title")
    return tag("section", head, tag("p", lead, class_="lead") if lead else "", *content, id=name, aria_labelledby=f"{name}-title")
