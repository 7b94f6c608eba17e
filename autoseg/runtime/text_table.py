"""Tables and paragraphs as text that fits the terminal: cells and sentences wrap, and columns that do not fit move below the others."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence

from .shown_text import in_one_line

WIDTH = 80
"""Characters a line where no terminal says another number: in a pipe, a file, a test."""

LEAST_WIDTH = 40
"""A narrower terminal breaks lines by itself."""

LEAST_NAME = 14
"""A column of names is not made narrower than that."""

GAP = "  "
"""Between two columns."""

QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
"""A word of a command that is quoted for a shell."""

KEPT_SPACE = "\0"
"""Stands for a space at which no line ends."""

COMMAND = re.compile(r"(?P<before>.*\b(?:Run|Next|again|run):|) +(?P<command>autoseg[_ ]\S.*)")
"""A line that ends with a command to copy, or is one, indented."""


def shown_width() -> int:
    """Characters a line: those of the terminal (or of COLUMNS, where that is set), else `WIDTH`."""
    return max(LEAST_WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)


def wrapped(text: str, width: int | None = None) -> str:
    """Text with lines of at most `width` characters, continued further to the right; what has no space, such as a path, stays whole.

    A command at the end of a line gets lines of its own, which can be copied to a shell together.
    """
    width = width or shown_width()
    return "\n".join(part for line in text.split("\n") for part in _wrapped_line(line, width))


def _wrapped_line(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    if found := COMMAND.fullmatch(line):
        first = indent if found["before"] else indent[2:]
        # A backslash that ends a line in quotes is no continuation for a shell, so what is quoted stays whole.
        command = QUOTED.sub(lambda quoted: quoted[0].replace(" ", KEPT_SPACE), found["command"])
        lines = [one.replace(KEPT_SPACE, " ") for one in _paragraph(command, width - 2, first, first + "  ")]
        before = _paragraph(found["before"], width, "", indent) if found["before"] else []
        return [*before, *(f"{one} \\" for one in lines[:-1]), lines[-1]]
    return _paragraph(line, width, "", indent)


def _paragraph(text: str, width: int, first: str, later: str) -> list[str]:
    fill = textwrap.TextWrapper(width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)
    return fill.wrap(text) or [""]


def aligned(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows as columns of equal width; the first and the last column to the left, numbers to the right.

    Where lines would be longer than `width` (None: `shown_width`) the first and the last column are wrapped; where that is not enough,
    columns that do not fit follow in blocks below, each beginning with the first column again.
    """
    width = width or shown_width()
    columns = [[in_one_line(cell) for cell in column] for column in zip(*rows, strict=True)]
    if not columns:
        return ""
    first, numbers, last = columns[0], columns[1:-1], [column for column in columns[1:][-1:] if any(column)]
    blocks, sizes = [], [max(map(len, column)) for column in numbers]
    begin, room = 0, _room(first, width)
    while begin < len(numbers):
        end, used = begin + 1, len(GAP) + sizes[begin]
        while end < len(numbers) and used + len(GAP) + sizes[end] <= room:
            used, end = used + len(GAP) + sizes[end], end + 1
        blocks.append(numbers[begin:end])
        begin = end
    blocks = blocks or [[]]
    none: list[list[str]] = []
    parts = [(block, none) for block in blocks[:-1]]
    if _fits_below(first, blocks[-1], last, width):
        parts.append((blocks[-1], last))
    else:
        parts += [(blocks[-1], none), (none, last)]
    return "\n\n".join(_block(first, *part, width) for part in parts)


def _room(first: Sequence[str], width: int) -> int:
    """Characters that a block has for its numbers when the first column is as narrow as it may be."""
    return width - min(max(map(len, first)), LEAST_NAME)


def _fits_below(first: Sequence[str], numbers: Sequence[Sequence[str]], last: Sequence[Sequence[str]], width: int) -> bool:
    """Whether the last column still fits beside the last numbers, at least as narrow as it may be."""
    taken = sum(len(GAP) + max(map(len, column)) for column in numbers)
    return taken + sum(len(GAP) + min(max(map(len, column)), LEAST_NAME) for column in last) <= _room(first, width)


def _block(first: Sequence[str], numbers: Sequence[Sequence[str]], last: Sequence[Sequence[str]], width: int) -> str:
    """One block of a table: its text columns as narrow as they must be, the wider one first; a longer name stands on a line of its own."""
    sizes = [max(map(len, column)) for column in numbers]
    texts = [max(map(len, column)) for column in (first, *last)]
    free = width - sum(sizes) - len(GAP) * (len(sizes) + len(last))
    while sum(texts) > max(free, len(texts)):
        widest = texts.index(max(texts))
        texts[widest] -= 1
    widths, lines = [texts[0], *sizes, *texts[1:]], []
    for number, name in enumerate(first):
        if not name and not any(column[number] for column in (*numbers, *last)):
            continue  # a line of units that none of this block's columns has
        if len(name) > texts[0] and (numbers or last):
            lines += broken(name, width)
            name = ""
        cells = [[name], *([column[number].rjust(size)] for column, size in zip(numbers, sizes, strict=True))]
        cells += [broken(column[number], texts[1]) for column in last]
        for line in range(max(map(len, cells))):
            parts = [(cell[line] if line < len(cell) else "").ljust(size) for cell, size in zip(cells, widths, strict=True)]
            lines.append(GAP.join(parts).rstrip())
    return "\n".join(lines)


def broken(cell: str, width: int) -> list[str]:
    """A cell in lines of at most `width` characters, broken at spaces, else behind a ``__``, ``/`` or ``_``, else anywhere."""
    lines, rest, indent = [], cell, "  " if cell.startswith(("* ", "  ")) else ""
    while len(rest) > width:
        head = rest[: width + 1]
        place = head.rstrip(" ").rfind(" ", len(indent) + 1)
        for mark in ("__", "/", "_"):
            if place <= 0:
                found = rest[:width].rfind(mark)
                place = found + len(mark) if found > len(indent) else -1
        place = place if place > 0 else width
        lines.append(rest[:place].rstrip())
        rest = indent + rest[place:].lstrip(" ")
        if len(indent) >= width:
            indent = ""
    return [*lines, rest]
