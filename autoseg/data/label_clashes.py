"""Labels of merged datasets that would not mean the same in each, with the mapping that mends it."""

from __future__ import annotations

from collections.abc import Sequence

from .annotations import UNION
from .label_mapping import MappedLabels
from .labels import side_and_organ

LESIONS = frozenset(
    (
        *("tumor", "tumour", "lesion", "cyst", "cancer", "carcinoma", "metastasis", "metastase", "mass", "nodule", "adenoma", "hcc"),
        *("infarct", "haematoma", "hematoma", "haemorrhage", "hemorrhage", "abscess"),
    )
)
"""Words of what lies inside of an organ and belongs to it where it has no label of its own."""


def check_clashes(sources: Sequence[MappedLabels]) -> None:
    """Refuses labels that mean different things in different datasets.

    - An organ is in two unions of a dataset, or in one and alone: a voxel's value could not say which.
    - The organs of a union are told apart by no dataset.
    - A region has others inside of it, and nothing says whether these still belong to it.
    - A side is known in one dataset and unknown in another (``kidney`` here, ``kidney_left`` and ``kidney_right`` there).
    - A part of an organ, such as a tumour, lies outside of the organ's label in one dataset and inside of it in another.

    What the user mapped, also to itself, is taken as meant.

    Raises:
        ValueError: There is such a clash; the message says what to map.
    """
    for source in sources:
        _check_unions(source)
        _check_regions(source)
    _check_known_apart(sources)
    for source in sources:
        for other in sources:
            if other is not source:
                _check_sides(source, other)
                _check_lesions(source, other)


def _check_unions(source: MappedLabels) -> None:
    sets = list(dict.fromkeys(frozenset(one) for one in source.organs.values() if one))
    for number, one in enumerate(sets):
        for other in sets[:number]:
            if common := sorted(one & other):
                shown = " and ".join(repr(UNION.join(sorted(some))) for some in (other, one))
                raise ValueError(f"{source.dataset.folder}: expected each organ alone or in one union, found {common[0]!r} in {shown}")


def _check_regions(source: MappedLabels) -> None:
    for outer, inside in source.regions.items():
        for inner in inside:
            if inner not in source.said:
                raise ValueError(
                    f"{source.dataset.folder}: {inner!r} lies inside of {outer!r}, a region, and merged labels exclude each other: "
                    f"--map {_text(source, inner, outer)} for {outer} as a whole, or --map {_text(source, inner, inner)} for {outer} "
                    f"without its {inner}"
                )


def _check_known_apart(sources: Sequence[MappedLabels]) -> None:
    alone = {name for source in sources for name in source.alone}
    for source in sources:
        for label, organs in source.organs.items():
            if len(organs) > 1 and (unknown := [name for name in organs if name not in alone]):
                raise ValueError(
                    f"--map {_text(source, label, '+'.join(organs))}: expected another dataset that shows {unknown[0]!r} by itself, from "
                    f"which it is learned what is what, found none; map {label!r} to one organ"
                )


def _check_sides(source: MappedLabels, other: MappedLabels) -> None:
    """Refuses an organ without a side where the other dataset knows the sides."""
    for label, organs in source.organs.items():
        if len(organs) != 1 or label in source.said or organs[0] in other.alone:
            continue
        side, words = _plain(organs[0])
        sided = [name for name in other.alone if _plain(name)[0] and _plain(name)[1] == words] if not side else []
        if sided:
            back = " ".join(_text(other, old, organs[0]) for old, new in other.organs.items() if new and new[0] in sided and len(new) == 1)
            raise ValueError(
                f"{source.dataset.folder}: {label!r} has no side, and {other.dataset.name} has {', '.join(sided)}: "
                f"--map {_text(source, label, '+'.join(sided))} (its sides are learned from {other.dataset.name}), or "
                f"--map {back} (no sides), or --map {_text(source, label, organs[0])} if it is another organ"
            )


def _check_lesions(source: MappedLabels, other: MappedLabels) -> None:
    """Refuses a part of an organ that is outside of the organ's label here, and inside of it in the other dataset."""
    shown = {name for organs in other.organs.values() for name in organs}
    for label, organs in source.organs.items():
        if len(organs) != 1 or label in source.said or organs[0] in shown:
            continue
        around = _organs_of_lesion(organs[0], source)
        within = {old: new[0] for old, new in other.organs.items() if len(new) == 1 and new[0] in around and old not in other.said}
        if not within:
            continue
        old, organ = next(iter(within.items()))
        whole = next(new for new in source.organs.values() if organ in new)
        cures = [f"--map {_text(source, label, '+'.join(whole))} (all of it is {' or '.join(whole)})"]
        if len(within) == 1:
            learned = f"what of it is {organs[0]} is learned from {source.dataset.name}"
            cures.append(f"--map {_text(other, old, f'{organ}+{organs[0]}')} ({learned})")
        cures.append(f"--map {_text(source, label, organs[0])} if {other.dataset.name} shows none")
        raise ValueError(
            f"{source.dataset.folder}: {label!r} lies outside of {organ!r} there, and inside of it in {other.dataset.name}, which has no "
            f"such label: {', or '.join(cures)}"
        )


def _organs_of_lesion(name: str, source: MappedLabels) -> list[str]:
    """Organs of a dataset that a lesion belongs to, by its name (``liver_tumor``) or as there is no other; empty where it is no lesion."""
    _, words = _plain(name)
    rest = [word for word in words if word not in LESIONS]
    if len(rest) == len(words):
        return []
    organs = dict.fromkeys(one for new in source.organs.values() for one in new if not LESIONS & set(_plain(one)[1]))
    if rest:
        return [one for one in organs if _plain(one)[1] == rest]
    return list(organs) if len({tuple(_plain(one)[1]) for one in organs}) == 1 else []


def _plain(name: str) -> tuple[str, list[str]]:
    """Side of an organ's name and its other words, sorted, in the singular as far as an s makes the plural."""
    side, words = side_and_organ(name)
    return side, sorted(word if word.endswith("is") else word.removesuffix("s") for word in words)


def _text(source: MappedLabels, label: str, organs: str) -> str:
    """A mapping as the command line takes it."""
    text = f"{source.name}:{label}={organs}"
    return f"'{text}'" if " " in text else text
