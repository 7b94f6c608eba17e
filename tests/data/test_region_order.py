"""Region orders: those by which a perfect result is written as what it is, and the advice for the others."""

from __future__ import annotations

import ast

import pytest
from factories import labels, regions
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.data.region_order import check_region_order
from autoseg.schema import Labels


def is_exact(order: Labels) -> bool:
    """Paints a voxel of every declared value by nnU-Net's rule: does it end in the same regions?"""

    def regions_of(value: int) -> list[bool]:
        return [value in members for members in order.members]

    def painted(value: int) -> int:
        result = 0
        for members, written in zip(order.members, order.regions_class_order, strict=True):
            result = written if value in members else result
        return result

    return all(regions_of(painted(value)) == regions_of(value) for value in order.base_values)


def test_organs_without_regions_have_no_order() -> None:
    check_region_order(labels(liver=1, spleen=2), "x")


@pytest.mark.parametrize(
    "order",
    [
        regions(order=(1, 2, 3), whole=(1, 2, 3), core=(2, 3), enhancing=(3,)),
        regions(order=(2, 1), whole=(1, 2), core=(1,)),
        regions(order=(1, 2), left=(1,), right=(2,)),
        regions(order=(1, 1), whole=(1, 2), same=(1, 2)),
        regions(order=(1, 3, 2), one=(1, 2), other=(2, 3), both=(2,)),
    ],
)
def test_later_regions_inside_of_earlier_ones_are_right(order: Labels) -> None:
    check_region_order(order, "x")
    assert is_exact(order)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (regions(order=(3, 2), whole=(1, 2), core=(2,)), r"found 3 for 'whole', which has \[1, 2\]; right is \[1, 2\]"),
        (regions(order=(2, 2), whole=(1, 2), core=(2,)), r"value 1 \(whole\) would be written as 2.*right is \[1, 2\]"),
        (regions(order=(2, 1), core=(2,), whole=(1, 2)), r"right is \[1, 2\] with the regions listed in the order whole, core"),
        (regions(order=(1, 3), one=(1, 2), other=(2, 3)), "no order is right for regions that overlap so"),
    ],
)
def test_orders_that_paint_wrongly_are_refused_with_what_is_right(order: Labels, said: str) -> None:
    with pytest.raises(ValueError, match=f"^dataset.json: regions_class_order: .*{said}"):
        check_region_order(order, "dataset.json")


@given(st.lists(st.tuples(st.sets(st.integers(1, 4), min_size=1), st.integers(1, 4)), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_an_order_passes_exactly_where_nothing_is_painted_wrongly(drawn: list[tuple[set[int], int]]) -> None:
    names = tuple(f"r{index}" for index in range(len(drawn)))
    order = Labels(names, tuple(tuple(sorted(members)) for members, _ in drawn), None, True, tuple(value for _, value in drawn))
    own = all(value in members for members, value in drawn)
    try:
        check_region_order(order, "x")
        assert own
        assert is_exact(order)
    except ValueError as error:
        assert not (own and is_exact(order))
        _, found, advice = str(error).partition("; right is ")
        if found:
            values, _, listed = advice.partition(" with the regions listed in the order ")
            members = dict(zip(names, order.members, strict=True))
            better = tuple(listed.split(", ")) if listed else names
            right = Labels(better, tuple(members[name] for name in better), None, True, tuple(ast.literal_eval(values)))
            check_region_order(right, "x")
