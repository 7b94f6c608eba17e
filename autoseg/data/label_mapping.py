"""What becomes of the labels of datasets that are merged: ``lits:tumor=liver``, ``kits:kidney=left kidney+right kidney``.

Without a mapping a label is the organ of its name. Labels of one dataset with the same name after it are their union. A label that becomes
several organs is annotated as their union: which of them a voxel shows is unknown there, and is learned from the datasets that say it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..runtime.dataset_folders import matching_names
from ..runtime.registry import unknown_name_error
from ..schema import Dataset, Labels
from .sources import bare_name

BACKGROUND = "background"
"""As a new name: the label is no organ of the merged dataset."""

EXAMPLE = "DATASET:LABEL=ORGAN such as lits:tumor=liver, kits:kidney=left_kidney+right_kidney or 3:cyst=background"

Organs = tuple[str, ...]
"""Organs of the merged dataset that a label becomes: one; several for their union; none for background."""


@dataclass(frozen=True)
class MappedLabels:
    """What becomes of the labels of one dataset.

    Attributes:
        dataset: Its labels exclude each other (`with_exclusive_labels`).
        organs: Label to organs, by the names of both.
        said: Labels that the user mapped, also to themselves.
        regions: Label to the labels that lie inside of it, where the dataset's own labels are regions.
    """

    dataset: Dataset
    organs: dict[str, Organs]
    said: frozenset[str]
    regions: dict[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """By which a mapping names the dataset."""
        return bare_name(self.dataset.name)

    @property
    def alone(self) -> list[str]:
        """Organs that the dataset knows by themselves."""
        return list(dict.fromkeys(one[0] for one in self.organs.values() if len(one) == 1))


def mapped_labels(datasets: Sequence[Dataset], mapping: Iterable[str] = ()) -> list[MappedLabels]:
    """Applies a mapping to the labels of datasets.

    Organs whose names differ in upper and lower case only are one; the first spelling stays, that of a dataset before one of the mapping.

    Args:
        mapping: Texts such as `EXAMPLE`. A dataset is named by its id, name or bare name.

    Raises:
        ValueError: A text has another form, names no dataset or label, or maps a label twice; or of regions that overlap neither lies
            inside the other.
    """
    plain = [_with_exclusive_labels(dataset) for dataset in datasets]
    given = _parsed(mapping, [one for one, _ in plain])
    spelling: dict[str, str] = {}
    for number, (dataset, _) in enumerate(plain):
        for name in dataset.labels.names:
            if given.get((number, name), (name,)) == (name,):
                spelling.setdefault(name.lower(), name)
    found = []
    for number, (dataset, regions) in enumerate(plain):
        organs = {name: given.get((number, name), (name,)) for name in dataset.labels.names}
        organs = {name: tuple(spelling.setdefault(one.lower(), one) for one in new) for name, new in organs.items()}
        said = frozenset(name for name in organs if (number, name) in given)
        found.append(MappedLabels(dataset, organs, said, regions))
    return found


def _parsed(mapping: Iterable[str], datasets: Sequence[Dataset]) -> dict[tuple[int, str], Organs]:
    """(Number of the dataset, its label) to the organs that it becomes."""
    found: dict[tuple[int, str], Organs] = {}
    known = {name.lower(): name for dataset in datasets for name in dataset.labels.names}
    for text in mapping:
        left, sign, right = text.partition("=")
        which, colon, labels = left.partition(":")
        if not (sign and colon and which.strip() and labels.strip() and right.strip()):
            raise ValueError(f"--map: expected {EXAMPLE}, got {text!r}")
        number = _dataset_number(which.strip(), datasets)
        new = _parts(right, known)
        new = () if [one.lower() for one in new] == [BACKGROUND] else new
        if len({one.lower() for one in new}) < len(new) or BACKGROUND in (one.lower() for one in new):
            raise ValueError(f"--map {text}: expected different organs, or {BACKGROUND} alone, got {right!r}")
        own = {name.lower(): name for name in datasets[number].labels.names}
        for label in _parts(labels, own):
            if label.lower() not in own:
                raise unknown_name_error(f"--map {text}: label of {datasets[number].name}", label, own.values())
            key = number, own[label.lower()]
            if key in found:
                raise ValueError(f"--map {text}: expected each label once, got {label!r} of {datasets[number].name} twice")
            found[key] = new
    return found


def _dataset_number(which: str, datasets: Sequence[Dataset]) -> int:
    names = [dataset.name for dataset in datasets]
    fitting = matching_names(names, which) or [name for name in names if bare_name(name).lower() == which.lower()]
    if not fitting:
        raise unknown_name_error("--map: dataset to merge", which, names)
    if len(fitting) > 1:
        raise ValueError(f"--map: dataset {which!r} means several: {', '.join(fitting)}; give the full name")
    return names.index(fitting[0])


def _parts(text: str, known: dict[str, str]) -> Organs:
    """The names in ``a+b``; a name that has a plus itself is one where a dataset has it."""
    text = text.strip()
    return (text,) if text.lower() in known else tuple(part.strip() for part in text.split("+") if part.strip())


def _with_exclusive_labels(dataset: Dataset) -> tuple[Dataset, dict[str, tuple[str, ...]]]:
    """The dataset with a value of its own for each label, and label to the labels inside of it, where its labels are regions.

    A region then is what belongs to no region inside of it; a mapping of these to its name makes it whole again.
    """
    labels = dataset.labels
    if not labels.regions:
        return dataset, {}
    own = {name: _own_value(labels, index) for index, name in enumerate(labels.names)}
    values = [value for value in own.values() if value is not None]
    if len(set(values)) < len(labels.base_values) or len(values) < len(labels.names):
        shown = ", ".join(f"{name} {list(members)}" for name, members in zip(labels.names, labels.members, strict=True))
        raise ValueError(
            f"{dataset.folder}: cannot be merged: expected regions each with one value outside of those inside it, found {shown}"
        )
    if partial := [case.name for case in dataset.cases if case.annotated is not None]:
        raise ValueError(f"{dataset.folder}: cannot be merged, as its labels are regions and some cases, such as {partial[0]}, lack some")
    ordered = sorted(own, key=lambda name: own[name] or 0)
    exclusive = Labels(tuple(ordered), tuple((own[name] or 0,) for name in ordered), labels.ignore)
    members = {name: set(values) for name, values in zip(labels.names, labels.members, strict=True)}
    inside = {outer: tuple(inner for inner in ordered if members[inner] < members[outer]) for outer in ordered}
    return replace(dataset, labels=exclusive), {outer: inner for outer, inner in inside.items() if inner}


def _own_value(labels: Labels, index: int) -> int | None:
    """The one value of a region that is in no region inside of it; None where there are none or several."""
    members = set(labels.members[index])
    inner = {value for other in labels.members if set(other) < members for value in other}
    own = members - inner
    return own.pop() if len(own) == 1 else None
