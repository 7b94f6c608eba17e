"""The order in which label regions are painted into a label map, and the value that each is painted with."""

from __future__ import annotations

from collections.abc import Sequence

from ..schema import Labels


def check_region_order(labels: Labels, source: str) -> None:
    """Refuses regions that cannot be painted so that a right result is written as what it is.

    Regions are painted one after the other, each with its value of ``regions_class_order``, later ones on top (nnU-Net's rule). A voxel of
    any declared value must end as that value, or as one of exactly the same regions.

    Raises:
        ValueError: A region is painted with a value that is not its own, or covers another one; the message begins with `source` and
            names an order that is right where there is one.
    """
    if not labels.regions:
        return
    reason = _wrong_value(labels) or _wrongly_painted(labels)
    if reason:
        raise ValueError(f"{source}: regions_class_order: {reason}; {_advice(labels)}")


def rightly_painted(labels: Labels) -> Labels:
    """The labels, where they are wrong with other painted values or, where that does not help, with the smaller regions painted later.

    Raises:
        ValueError: There is no right order: regions overlap, and what they have in common is no region.
    """
    if not labels.regions or not (_wrong_value(labels) or _wrongly_painted(labels)):
        return labels
    for order in _orders(labels):
        if values := _values_for(labels, order):
            names, members = tuple(labels.names[index] for index in order), tuple(labels.members[index] for index in order)
            return Labels(names, members, labels.ignore, True, tuple(values))
    raise ValueError(f"the regions {', '.join(labels.names)} cannot be painted: {_wrongly_painted(labels)}; {_advice(labels)}")


def _wrong_value(labels: Labels) -> str:
    for name, members, value in zip(labels.names, labels.members, labels.regions_class_order, strict=True):
        if value not in members:
            return f"expected for each region a value of its own, found {value} for {name!r}, which has {list(members)}"
    return ""


def _wrongly_painted(labels: Labels) -> str:
    """The first declared value that is not written as itself, in words."""
    for value in labels.base_values:
        regions = _regions_of(labels, value)
        painted = labels.regions_class_order[regions[-1]]
        if _regions_of(labels, painted) != regions:
            names = [labels.names[region] for region in regions]
            return (
                "expected an order in which later regions lie inside of earlier ones, found that a voxel of value"
                f" {value} ({', '.join(names)}) would be written as {painted}, because {names[-1]!r} is painted last there"
            )
    return ""


def _regions_of(labels: Labels, value: int) -> list[int]:
    """Indices of the regions to which a file value belongs, in the order of painting."""
    return [index for index, members in enumerate(labels.members) if value in members]


def _orders(labels: Labels) -> tuple[list[int], list[int]]:
    """Orders of painting that may be right: as the regions are listed, and the largest first."""
    listed = list(range(len(labels.names)))
    return listed, sorted(listed, key=lambda index: -len(labels.members[index]))


def _advice(labels: Labels) -> str:
    """What would be right, in words."""
    for order in _orders(labels):
        values = _values_for(labels, order)
        if values:
            names = [labels.names[index] for index in order]
            moved = f" with the regions listed in the order {', '.join(names)}" if names != list(labels.names) else ""
            return f"right is {values}{moved}"
    return "no order is right for regions that overlap so: give what they have in common a region of its own, listed last"


def _values_for(labels: Labels, order: Sequence[int]) -> list[int]:
    """For regions that are painted in this order the values that make every declared value end as itself; empty where there are none."""
    ordered = Labels(tuple(labels.names[i] for i in order), tuple(labels.members[i] for i in order), labels.ignore, regions=True)
    values = []
    for index, members in enumerate(ordered.members):
        own = [value for value in members if _regions_of(ordered, value)[-1] == index]
        values.append((own or list(members))[0])
    right = Labels(ordered.names, ordered.members, labels.ignore, True, tuple(values))
    return [] if _wrongly_painted(right) else values
