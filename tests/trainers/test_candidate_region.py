"""The radius of a candidate region, on cubes whose recall and false-positive rate can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from factories import ORGANS, make_configuration, make_job, make_plan, regions

from autoseg.preprocessing.storage import Store, write_array
from autoseg.schema import Labels
from autoseg.trainers.cascade.candidate_region import candidate_table, choose_candidate_region, choose_radius


def line(*values: int) -> np.ndarray:
    return np.array(values, np.int16).reshape(1, 1, -1)


def table(*cases: tuple[str, np.ndarray, np.ndarray], labels: Labels = ORGANS, **options):
    return candidate_table(cases, labels, labels.names, **options)


def test_recall_and_false_positives_counted_by_hand():
    # The ball (1) is found but for two voxels, the block (2) lies two and three voxels from what was found.
    found = line(0, 1, 1, 0, 0, 0, 0, 0, 0, 0) > 0
    truth = line(1, 1, 1, 1, 2, 2, 0, 0, 0, 0)
    rows = table(("a", found, truth), largest=4)
    assert [row.radius for row in rows] == [0, 1, 2, 3, 4]
    assert [row.organs for row in rows] == [(0.5, 0.0), (1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (1.0, 1.0)]
    assert [row.recall for row in rows] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert [row.false_positive_rate for row in rows] == [0, 0, 0, 0, 0.25]
    assert [row.share for row in rows] == [0.2, 0.4, 0.5, 0.6, 0.7]


def test_the_mean_is_over_cases_and_the_worst_is_named():
    full, none = line(1, 1, 0, 0), line(0, 0, 0, 1)
    rows = table(("good", full > 0, full), ("bad", none > 0, full), largest=3)
    assert [row.recall for row in rows] == [0.5, 0.5, 0.75, 1.0]
    assert [(row.worst_recall, row.worst_case) for row in rows[:3]] == [(0, "bad"), (0, "bad"), (0.5, "bad")]
    assert np.isnan(rows[0].organs[1]), "no case has a block"


def test_a_case_without_organs_has_no_recall_but_false_positives():
    full, empty = line(1, 1, 0, 0), line(0, 0, 0, 0)
    (row,) = table(("a", full > 0, full), ("b", full > 0, empty), largest=0)
    assert (row.recall, row.false_positive_rate) == (1, 0.25)
    with pytest.raises(ValueError, match="expected cases with ball, block, found none in b"):
        table(("b", full > 0, empty))


def test_where_nothing_was_found_the_region_is_everywhere():
    rows = table(("a", line(0, 0, 0) > 0, line(1, 0, 0)), largest=1)
    assert [(row.recall, row.false_positive_rate) for row in rows] == [(1, 1), (1, 1)]


def test_ignored_and_missing_voxels_and_regions():
    nested = regions(whole=(2, 5), core=(5,), ignore=9)
    # internal: 1, 2 organs, 3 ignored, -1 outside the image's data
    rows = table(("a", line(1, 0, 0, 0, 0) > 0, line(1, 2, 3, 0, -1)), labels=nested, largest=1)
    assert rows[0].organs == (0.5, 0.0)
    assert [row.false_positive_rate for row in rows] == [0, 0]
    assert [row.share for row in rows] == [0.25, 0.5]
    assert candidate_table([("a", line(1) > 0, line(1))], nested, ["whole"], largest=0)[0].organs == (1.0,)


def test_the_smallest_radius_with_enough_recall_else_the_largest():
    full, near = line(*[1] * 10, 0), line(*[0] * 3, *[1] * 7, 0)
    rows = table(("a", near > 0, full), largest=5)
    assert [row.recall for row in rows] == [0.7, 0.8, 0.9, 1, 1, 1]
    assert choose_radius(rows).radius == 3
    assert choose_radius(rows, 0.9).radius == 3, "above, not at"
    assert choose_radius(rows, 0.85).radius == 2
    assert "the smallest with 100.00% of the organs inside (100.0% in the worst case, a)" in choose_radius(rows).why
    short = choose_radius(rows[:3])
    assert short.radius == 2
    assert "none reaches a recall of 99%; the largest has 90.00%" in short.why
    assert short.rows == rows[:3]


def test_of_a_run_only_the_training_cases_count(cascade_folders):
    previous, store = cascade_folders.previous, Store(cascade_folders.data)
    for name in "cd":  # held out: not to be looked at
        write_array(previous / f"{name}.b2nd", np.zeros((1, *store.load(name).segmentation.shape), np.uint8))
    job = make_job(make_plan(make_configuration(name="3d_cascade", previous_stage="3d_lowres")), "3d_cascade")
    chosen = choose_candidate_region(job, cascade_folders)
    assert (chosen.radius, chosen.organs) == (0, ("ball", "block"))
    assert (chosen.rows[0].recall, chosen.rows[0].false_positive_rate) == (1, 0)
    one_organ = np.asarray(store.load("a").segmentation[:])[None] == 1
    write_array(previous / "a.b2nd", one_organ.astype(np.uint8))
    assert choose_candidate_region(job, cascade_folders).radius > 0
