"""Two predictions of the same cases: means, differences and tests whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.evaluation.comparison import compare_scores, comparison_table
from autoseg.schema import Score


def scores(values, organ="liver", **other):
    """Scores of cases 0, 1, ... with these Dice values."""
    return [
        Score(f"case_{number}", organ, float(value), 0.0, 1, 1, {name: some[number] for name, some in other.items()})
        for number, value in enumerate(values)
    ]


def compare(first, second, metric="dice", **options):
    """The one difference of two predictions of one organ."""
    (found,) = compare_scores(first, second, metrics=(metric,), **options)
    return found


def test_difference_by_hand():
    found = compare(scores([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), scores([0.2, 0.3, 0.4, 0.5, 0.6, 0.9]))
    assert (found.organ, found.metric, found.cases) == ("liver", "dice", 6)
    assert (found.first, found.second) == (pytest.approx(0.35), pytest.approx(0.35 + 0.8 / 6))
    assert found.difference == pytest.approx(0.8 / 6)
    assert 0.1 - 1e-9 <= found.low < found.difference < found.high <= 0.3 + 1e-9
    assert found.p_value == pytest.approx(2 / 64) == found.corrected
    assert found.t_p_value == pytest.approx(0.0103234, abs=1e-6) == found.t_corrected  # t = 4.0 at 5 degrees of freedom


def test_organs_are_corrected_for_their_number():
    middle, steps = np.full(8, 0.5), np.arange(1, 9) / 16
    first = scores(middle) + scores(middle, "spleen") + scores(middle, "heart")
    second = scores(middle + steps) + scores(middle + steps * np.array([-1, 1] * 4), "spleen") + scores(middle, "heart")
    liver, spleen, heart = compare_scores(first, second, metrics=("dice",))
    assert liver.p_value == pytest.approx(2 / 256)
    assert liver.corrected == pytest.approx(4 / 256)  # two tests; the heart's values do not differ, and cannot be tested
    assert spleen.corrected == spleen.p_value > 0.5
    assert math.isnan(heart.p_value) and math.isnan(heart.corrected) and heart.difference == 0.0


def test_only_cases_with_both_values_count():
    assert compare(scores([0.5, math.nan, 0.7]), scores([0.6, 0.0])).cases == 1
    none = compare(scores([math.nan]), scores([math.nan]))
    assert none.cases == 0 and math.isnan(none.difference)


def test_cases_of_a_patient_are_one_observation():
    first, second = scores(np.zeros(12)), scores(np.arange(1.0, 13.0) / 16)
    alone = compare(first, second)
    together = compare(first, second, patients={f"case_{number}": f"patient_{number // 2}" for number in range(12)})
    assert alone.p_value == pytest.approx(2 / 2**12) and together.p_value == pytest.approx(2 / 2**6)
    assert together.cases == 12 and together.difference == alone.difference
    assert (alone.patients, together.patients) == (12, 6)
    assert " patients " in comparison_table([together], ("one", "other")) and "over the cases" in comparison_table(
        [alone], ("one", "other")
    )
    many = {f"case_{number}": "one" if number < 9 else f"patient_{number}" for number in range(12)}
    assert compare(first, second, patients=many).difference == pytest.approx(np.mean([5, 10, 11, 12]) / 16), "once, however many cases"


def test_metric_that_the_scores_lack_is_named():
    with pytest.raises(ValueError, match="liver in case case_0: .*dice, iou, got 'chaos'"):
        compare(scores([0.5]), scores([0.5]), "chaos")


def test_table_says_which_is_better():
    far, near = [9.0] * 8, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    first, second = scores(np.full(8, 0.5), hd_border=near), scores(np.full(8, 0.5), hd_border=far)
    text = comparison_table(compare_scores(first, second, metrics=("dice", "hd_border")), ("one", "other")).splitlines()
    assert text[:2] == ["A = one", "B = other"]
    assert text[3].split() == [
        "dice",
        "cases",
        "A",
        "B",
        "B",
        "-",
        "A",
        "95",
        "%",
        "interval",
        "p",
        "p",
        "(Holm)",
        "t:",
        "p",
        "p",
        "(Holm)",
        "better",
    ]
    assert text[4].split()[:5] == ["liver", "8", "0.5000", "0.5000", "0.0000"] and text[4].split()[-1] == "-"
    assert text[6].startswith("hd_border (mm)")
    assert text[7].split()[:5] == ["liver", "8", "4.50", "9.00", "+4.50"] and text[7].split()[-1] == "A"


def test_mean_against_the_ranks_is_no_winner():
    slightly = np.array([0.6 + 0.001 * number for number in range(20)] + [0.0])
    few_much = np.append(slightly[:20] - 0.01, 0.9)
    found = compare(scores(slightly), scores(few_much))
    assert found.corrected < 0.05 and found.difference > 0 and found.better == ""
    found = compare(scores(slightly), scores(np.append(few_much[:20], 0.0)))
    assert found.corrected < 0.05 and found.better == "first"


@pytest.mark.parametrize("metric", ["volume", "volume_error"])
def test_what_has_no_order_has_no_better_one(metric):
    first, second = (scores(np.full(8, 0.5), **{metric: start + np.arange(8) * sign}) for start, sign in ((9.0, 1), (-8.0, -1)))
    found = compare(first, second, metric)
    assert found.corrected < 0.05 and found.better == ""
    assert f"{metric} (ml)" in comparison_table([found], ("one", "other"))


def test_same_seed_same_interval():
    first, second = scores(np.zeros(9)), scores(np.arange(9.0) / 16)
    assert compare(first, second) == compare(first, second)
