"""Parser of the ``labels`` entry of ``dataset.json``, and of entries that give organs a value each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..runtime.registry import unknown_name_error
from ..schema import Labels

IGNORE = "ignore"
T = TypeVar("T")


def parse_labels(info: Mapping[str, Any], file: Path) -> Labels:
    """Reads organs, regions and the ignore label.

    Understands nnU-Net's form (name -> value, or name -> values for regions, with ``regions_class_order``) and the older
    one of the Decathlon (value -> name). Values need not be consecutive. The organ with value 0 is the background.

    Raises:
        ValueError: No organ, values that are no non-negative integers, or a wrong ``regions_class_order``.
    """
    organs = _organs(info.get("labels"), file)
    ignore = organs.pop(IGNORE, None)
    organs = {name: members for name, members in organs.items() if any(members)}
    if not organs:
        raise ValueError(f"{file}: labels: expected at least one organ besides background, found {info.get('labels')!r}")
    if ignore is not None and (len(ignore) != 1 or any(ignore[0] in members for members in organs.values())):
        raise ValueError(f"{file}: labels: expected one value of its own for 'ignore', found {list(ignore)}")
    ignored = None if ignore is None else ignore[0]
    if any(len(members) > 1 for members in organs.values()):
        return Labels(tuple(organs), tuple(organs.values()), ignored, True, _regions_class_order(info, organs, file))
    ordered = sorted(organs, key=lambda name: organs[name])
    values = [organs[name][0] for name in ordered]
    if len(set(values)) < len(values):
        raise ValueError(f"{file}: labels: expected a value of its own for each organ, found {info['labels']!r}")
    return Labels(tuple(ordered), tuple((value,) for value in values), ignored)


def parse_by_organ(entry: Any, labels: Labels, source: str, example: str, parse: Callable[[Any, str], T]) -> dict[str, T]:
    """Reads an entry that gives organs a value each; `parse` gets the value and the beginning of its message.

    Raises:
        ValueError: The entry is no object, names what is no organ, or `parse` refuses a value.
    """
    if not isinstance(entry or {}, dict):
        raise ValueError(f"{source}: expected an object such as {example}, found {entry!r}")
    for organ in entry or {}:
        if organ not in labels.names:
            raise unknown_name_error(f"{source}: organ", organ, labels.names)
    return {organ: parse(value, f"{source}: {organ}") for organ, value in (entry or {}).items()}


def _organs(entry: Any, file: Path) -> dict[str, tuple[int, ...]]:
    if not isinstance(entry, dict) or not entry:
        raise ValueError(f'{file}: labels: expected an object such as {{"background": 0, "liver": 1}}, found {entry!r}')
    if all(str(key).isdigit() and isinstance(value, str) and not value.isdigit() for key, value in entry.items()):
        if len(set(entry.values())) < len(entry):
            raise ValueError(f"{file}: labels: expected a name of its own for each value, found {entry!r}")
        return {name: (int(value),) for value, name in entry.items()}
    return {str(name): _members(str(name), value, file) for name, value in entry.items()}


def _members(name: str, value: Any, file: Path) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    try:
        members = tuple(int(item) for item in values)
    except (TypeError, ValueError):
        members = ()
    if not members or any(member < 0 or isinstance(item, (bool, float)) for member, item in zip(members, values, strict=True)):
        raise ValueError(f"{file}: labels: {name}: expected a non-negative integer or a list of them, found {value!r}")
    return members


def _regions_class_order(info: Mapping[str, Any], organs: Mapping[str, tuple[int, ...]], file: Path) -> tuple[int, ...]:
    order = info.get("regions_class_order")
    declared = {value for members in organs.values() for value in members}
    if not isinstance(order, list) or len(order) != len(organs) or not all(value in declared for value in order):
        raise ValueError(
            f"{file}: regions_class_order: expected {len(organs)} values of {sorted(declared)}, one for each of the regions"
            f" {list(organs)}, found {order!r}"
        )
    return tuple(int(value) for value in order)
