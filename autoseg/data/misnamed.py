"""Label maps that are called otherwise than their images: one thing to say instead of two a case."""

from __future__ import annotations

from collections.abc import Sequence

LABEL, CHANNEL = "missing label", "missing channel"
"""Kinds of findings (`folder_files.MissingFile`) that two names for one case lead to."""


def misnamed(found: Sequence[tuple[str, str]]) -> tuple[str, dict[str, str]]:
    """What the names of label maps have more than those of their images, in words, and the cases: image's name to label map's.

    Only where at least two images lack a label map, and each has one whose name differs from its own by the same letters.

    Args:
        found: Case and kind of each finding.
    """
    lacking = [case for case, kind in found if kind == LABEL]
    surplus = [case for case, kind in found if kind == CHANNEL]
    if len(lacking) < 2:
        return "", {}
    affixes = {other.replace(lacking[0], "", 1) for other in surplus if lacking[0] in other}
    for affix in sorted(filter(None, affixes), key=len):
        for words, pattern in ((f"files end in {affix}", f"{{}}{affix}"), (f"files begin with {affix}", f"{affix}{{}}")):
            pairs = {case: pattern.format(case) for case in lacking}
            if set(pairs.values()) <= set(surplus):
                return words, pairs
    return "", {}
