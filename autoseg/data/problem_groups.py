"""Equal findings of a check in groups, and the table of all of them: 24 cases with one fault are one thing to read."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.serialization import Writer, atomic_write
from ..runtime.shown_text import spreadsheet_cell
from .checks import MISSING_CHANNEL, MISSING_LABEL, Problem
from .images import stem_of
from .misnamed import misnamed

NUMBER = re.compile(r"(?<!value )(?<![\w.])-?\d[\d.,]*(?:e[+-]?\d+)?")
"""A measure, in which findings of one kind may differ; a label value is none."""


@dataclass(frozen=True)
class ProblemGroup:
    """Problems that differ in case, file and measure only.

    Attributes:
        problems: At least one; the first stands for all.
        hint: What they have in common beyond that; mostly empty.
    """

    problems: tuple[Problem, ...]
    hint: str = ""

    @property
    def example(self) -> Problem:
        """The first of them."""
        return self.problems[0]

    @property
    def cases(self) -> list[str]:
        """Names of the cases, each once."""
        return list(dict.fromkeys(one.case for one in self.problems))


def grouped(problems: Sequence[Problem]) -> list[ProblemGroup]:
    """Problems in groups of equal findings, in the order of the first of each.

    Where label maps only are called otherwise than their images, ``case_0_gt`` beside ``case_0``, these are one group, which says so.
    """
    affix, pairs = misnamed([(one.case, one.kind) for one in problems])
    explained = {one for one in problems if one.kind == MISSING_CHANNEL and one.case in pairs.values()}
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        if problem not in explained:
            named = problem.kind == MISSING_LABEL and problem.case in pairs
            groups.setdefault((problem.kind, named, problem.fixable, problem.is_note, *_alike(problem)), []).append(problem)
    return [ProblemGroup(tuple(some), affix if key[1] else "") for key, some in groups.items()]


def _alike(problem: Problem) -> tuple[str, str]:
    """What is found and expected, without names and measures."""
    file = Path(problem.file)

    def without_names(text: str) -> str:
        for name in filter(None, (problem.file, file.name, stem_of(file), problem.case)):
            text = text.replace(name, "")
        return NUMBER.sub("N", text)

    return without_names(problem.found), without_names(problem.expected)


def write_problems(path: Path, problems: Sequence[Problem], *, write: Writer = atomic_write) -> None:
    """Writes all problems to a CSV file, a row each."""
    with write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "kind", "file", "found", "expected", "--fix"])
        for one in problems:
            fix = "repairs it" if one.fixable else "with --geometry" if one.readings else "not needed" if one.is_note else ""
            writer.writerow([*map(spreadsheet_cell, (one.case, one.kind, one.file, one.found, one.expected)), fix])
