"""Text from files as a terminal, a spreadsheet or a figure shows it: nothing in it is carried out."""

from __future__ import annotations

FORMULA_SIGNS = "=+-@\t\r\uff1d\uff0b\uff0d\uff20"
"""First characters of a cell that spreadsheets take for a formula, those of full width too."""


def one_of_many(kind: str) -> dict[str, str]:
    """The ``extra`` of a log record of which there may be one a file: a command shows the first few of a kind, and counts the others.

    Args:
        kind: What the records say, as a plural: ``contradicting headers``.
    """
    return {"one_of_many": kind}


def duration(seconds: float) -> str:
    """A duration in the two units that suit it."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def printable(text: str) -> str:
    """Text for a terminal: control characters (but line feeds), escape sequences and direction marks as ``\\x1b``, the rest as it is."""
    from ..schema.names import is_unprintable  # the room of values needs numpy, which `--help` has no use for

    return "".join(repr(one)[1:-1] if one != "\n" and is_unprintable(one) else one for one in text)


def in_one_line(text: object) -> str:
    """As `printable`, for what is part of a line, such as names of files: also line feeds are shown, as ``\\n``."""
    return printable(str(text)).replace("\n", r"\n")


def number_of(n: int, noun: str) -> str:
    """A number of things: ``1 case``, ``2 cases``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def spreadsheet_cell(text: str) -> str:
    """A name as a cell of a CSV file: one that a spreadsheet would take for a formula begins with an apostrophe; numbers stay."""
    cell = in_one_line(text)
    return f"'{cell}" if text.startswith(tuple(FORMULA_SIGNS)) and not _is_number(text) else cell


def figure_text(name: str) -> str:
    """A name as a label of a matplotlib figure, where text between dollar signs would be set as a formula."""
    return name.replace("$", r"\$")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isprintable()
