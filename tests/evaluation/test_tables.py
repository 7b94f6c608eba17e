"""Scores as a table that says what its columns mean, and as a file for a spreadsheet."""

from __future__ import annotations

import csv
import io
import math

import pytest

from autoseg.evaluation.metrics import Metric
from autoseg.evaluation.summaries import summary
from autoseg.evaluation.tables import csv_text, number, table
from autoseg.schema import Score


def one(case, organ, dice, **other):
    return Score(case, organ, dice, dice / 2, 7, 8, other)


def test_head_names_unit_and_definition():
    scores = [one("a", "liver", 0.5, hd_border=12.0, nsd_surface=0.25), one("b", "liver", 0.7, hd_border=1.0, nsd_surface=0.75)]
    assert table(scores, tolerance_mm={"liver": 3.0}, metrics=None).splitlines() == [
        "organ    Dice     IoU      HD      NSD  cases  absent  worst case (Dice)",
        "                           mm",
        "                       border  surface",
        "liver  0.6000  0.3000    6.50   0.5000      2       0  0.5000 a",
        "surface: distances between surface elements, weighted by their area, as in the package surface-distance",
        "border: distances between border voxels, as in the CHAOS challenge (whose score uses them too)",
        "NSD: share within 1 mm (liver 3 mm)",
        "Means over the cases. A missed organ is as far away as the image is large.",
        "absent: cases without the organ in both, left out of the means",
    ]


def test_dice_nsd_and_hd95_are_shown_with_the_worst_case_and_every_metric_on_request():
    others = {"sensitivity": 0.5, "hd95_surface": 3.0, "nsd_surface": 0.75, "hd_border": 9.0, "chaos": 70.0}
    scores = [one(case, organ, 0.5 + 0.1 * n, **others) for n, case in enumerate("ab") for organ in ("liver", "spleen")]
    lines = table(scores, width=80).splitlines()
    assert lines[0].split()[:5] == ["organ", "Dice", "NSD", "HD95", "cases"] and lines[3].split() == [
        "liver",
        "0.5500",
        "0.7500",
        "3.00",
        "2",
        "0.5000",
        "a",
    ]
    everything = table(scores, metrics=None, width=80)
    assert all(title in everything for title in ("IoU", "sensitivity", "score", "absent")) and "sensitivity" not in "".join(lines)
    assert max(map(len, [*lines, *everything.splitlines()])) <= 80


def test_caption_says_only_what_is_shown():
    chaos = table([one("a", "liver", 0.5, chaos=80.0)], metrics=None)
    assert "surface" not in chaos and "border voxels" in chaos
    assert "lesions: components" in table([one("a", "liver", 0.5, lesion_f1=0.5)], metrics=None)
    assert "within" not in table([one("a", "liver", 0.5, nsd_surface=0.5)])


miss = Metric("nowhere:miss", needs="masks", better="lower", unit="mm")


def test_unknown_metric_has_its_own_name():
    assert "my_metrics:ratio" in table([one("a", "liver", 0.5, **{"my_metrics:ratio": 0.25})], metrics=None)


def test_metric_of_the_users_own_has_its_unit():
    name = f"{__name__}:miss"
    lines = table([one("a", "liver", 0.5, **{name: 1.25})], metrics=None).splitlines()
    assert lines[0].split()[3] == name and lines[1].split() == ["mm"] and lines[2].split()[3] == "1.25"
    assert csv_text({"out": [one("a", "liver", 0.5, **{name: 1.25})]}).startswith(f"case,organ,dice,iou,{name} (mm),")


def test_digits():
    values = {"dice": 0.12345, "hd_border": 0.12345, "chaos": 85.53, "iou": math.nan}
    assert [number(value, name) for name, value in values.items()] == ["0.1235", "0.12", "85.53", "-"]


def test_file_for_a_spreadsheet():
    scores = [one("a", "liver, left", 0.1 + 0.2, ravd=1.5), one("b", "spleen", math.nan)]
    rows = list(csv.reader(io.StringIO(csv_text({"out": scores}))))
    assert rows == [
        ["case", "organ", "dice", "iou", "ravd (%)", "n_prediction (voxels)", "n_reference (voxels)"],
        ["a", "liver, left", "0.30000000000000004", "0.15000000000000002", "1.5", "7", "8"],
        ["b", "spleen", "", "", "", "7", "8"],
    ]
    several = csv_text({"x": scores[:1], "y": scores[1:]}).splitlines()
    assert [line.split(",")[0] for line in several] == ["prediction", "x", "y"]


def test_global_dice_is_that_of_all_voxels_together():
    """Two cases with TP, FP, FN of 1, 1, 1 and of 90, 0, 20, and one without the organ."""
    some = [Score("a", "liver", 0.5, 1 / 3, 2, 2, {"global_dice": 0.5}), Score("b", "liver", 0.9, 0.9, 90, 110, {"global_dice": 0.9})]
    some.append(Score("c", "liver", math.nan, math.nan, 0, 0, {"global_dice": math.nan}))
    means = summary(some)["liver"].means
    assert (means["dice"], means["global_dice"]) == pytest.approx((0.7, 2 * 91 / (2 * 91 + 1 + 21)))
    assert "global Dice" in table(some, metrics=None).splitlines()[0]
