"""Parser of the ``labels`` entry of ``dataset.json``, and of entries that give organs a value each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..runtime.registry import unknown_name_error
from ..runtime.strict_json import shown
from ..schema import Labels
from ..schema.names import check_text
from .region_order import check_region_order

IGNORE = "ignore"
MAX_VALUE = 2**32 - 1
"""Largest value that a written label map holds."""

T = TypeVar("T")


def parse_labels(info: Mapping[str, Any], file: Path) -> Labels:
    """Reads organs, regions and the ignore label.

    Understands nnU-Net's form (name -> value, or name -> values for regions, with ``regions_class_order``) and the older
    one of the Decathlon (value -> name). Values need not be consecutive. The organ with value 0 is the background.

    Raises:
        ValueError: No organ, names that are no text, values that are no non-negative integers or not those of one organ, or a wrong
            ``regions_class_order``.
    """
    organs = _organs(info.get("labels"), file)
    ignore = organs.pop(IGNORE, None)
    organs = _without_background(organs, file)
    if not organs:
        raise ValueError(f"{file}: labels: expected at least one organ besides background, found {shown(info.get('labels'))}")
    if ignore is not None and (len(ignore) != 1 or any(ignore[0] in members for members in organs.values())):
        raise ValueError(f"{file}: labels: expected one value of its own for 'ignore', found {list(ignore)}")
    ignored = None if ignore is None else ignore[0]
    if any(len(members) > 1 for members in organs.values()):
        labels = Labels(tuple(organs), tuple(organs.values()), ignored, True, _regions_class_order(info, organs, file))
        check_region_order(labels, str(file))
        return labels
    ordered = sorted(organs, key=lambda name: organs[name])
    values = [organs[name][0] for name in ordered]
    if len(set(values)) < len(values):
        raise ValueError(f"{file}: labels: expected a value of its own for each organ, found {shown(info['labels'])}")
    return Labels(tuple(ordered), tuple((value,) for value in values), ignored)


def parse_by_organ(entry: Any, labels: Labels, source: str, example: str, parse: Callable[[Any, str], T]) -> dict[str, T]:
    """Reads an entry that gives organs a value each; `parse` gets the value and the beginning of its message.

    Raises:
        ValueError: The entry is no object, names what is no organ, or `parse` refuses a value.
    """
    if not isinstance(entry or {}, dict):
        raise ValueError(f"{source}: expected an object such as {example}, found {shown(entry)}")
    for organ in entry or {}:
        if organ not in labels.names:
            raise unknown_name_error(f"{source}: organ", organ, labels.names)
    return {organ: parse(value, f"{source}: {organ}") for organ, value in (entry or {}).items()}


def _organs(entry: Any, file: Path) -> dict[str, tuple[int, ...]]:
    if not isinstance(entry, dict) or not entry:
        raise ValueError(f'{file}: labels: expected an object such as {{"background": 0, "liver": 1}}, found {shown(entry)}')
    if all(key.isdecimal() and isinstance(value, str) and not value.isdecimal() for key, value in entry.items()):
        if len(set(entry.values())) < len(entry):
            raise ValueError(f"{file}: labels: expected a name of its own for each value, found {shown(entry)}")
        entry = {name: value for value, name in entry.items()}
    try:
        for name in entry:
            check_text(name, "label")
    except ValueError as error:
        raise ValueError(f"{file}: labels: {error}") from error
    return {name: _members(name, value, file) for name, value in entry.items()}


def _without_background(organs: Mapping[str, tuple[int, ...]], file: Path) -> dict[str, tuple[int, ...]]:
    """The organs without the one of value 0, of which there is one at most."""
    background = [name for name, members in organs.items() if members == (0,)]
    if len(background) > 1:
        raise ValueError(f"{file}: labels: expected one name for the background's value 0, found {', '.join(background)}")
    for name, members in organs.items():
        if name.lower() == "background" and members != (0,):
            raise ValueError(f"{file}: labels: background: expected the value 0, found {list(members)}")
        if 0 in members and len(members) > 1:
            raise ValueError(f"{file}: labels: {name}: expected a region without the background's value 0, found {list(members)}")
    return {name: members for name, members in organs.items() if members != (0,)}


def _members(name: str, value: Any, file: Path) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    try:
        members = tuple(int(item) for item in values)
    except (TypeError, ValueError):
        members = ()
    wrong = any(not 0 <= member <= MAX_VALUE or isinstance(item, (bool, float)) for member, item in zip(members, values, strict=False))
    if not members or wrong or len(set(members)) < len(members):
        raise ValueError(
            f"{file}: labels: {name}: expected a non-negative integer (up to {MAX_VALUE}) or a list of different ones, found {shown(value)}"
        )
    return members


def _regions_class_order(info: Mapping[str, Any], organs: Mapping[str, tuple[int, ...]], file: Path) -> tuple[int, ...]:
    order = info.get("regions_class_order")
    declared = {value for members in organs.values() for value in members}
    fits = isinstance(order, list) and len(order) == len(organs) and all(type(value) is int and value in declared for value in order)
    if not fits:
        raise ValueError(
            f"{file}: regions_class_order: expected {len(organs)} values of {sorted(declared)}, one for each of the regions"
            f" {list(organs)}, found {shown(order)}"
        )
    return tuple(order or ())
