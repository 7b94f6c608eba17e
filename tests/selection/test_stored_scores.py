"""What the cross-validation left behind: seconds of models with all that they build on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from autoseg.pipeline.choosing import _quick
from autoseg.runtime.serialization import write_json
from autoseg.schema import Candidate, Choice, Score
from autoseg.selection.stored_scores import mean_scores_of_own_folds, seconds_of, stored_scores


def add_run(results: Path, model: str, seconds: list[float], fold: str = "0", **run: object) -> None:
    folder = results / model / f"fold_{fold}"
    write_json(folder / "run.json", run)
    if seconds:
        write_json(folder / "validation" / "timings.json", {f"c{i}": value for i, value in enumerate(seconds)})


def test_seconds_are_the_mean_over_the_cases_of_the_folds(tmp_path):
    add_run(tmp_path, "2d__T", [1.0, 2.0])
    add_run(tmp_path, "2d__T", [3.0, 6.0], fold="1")
    assert seconds_of(tmp_path, ["2d__T"], ["0", "1"]) == {"2d__T": 3.0}
    assert seconds_of(tmp_path, ["2d__T"], ["0"]) == {"2d__T": 1.5}


def test_models_that_were_not_measured_are_missing(tmp_path):
    add_run(tmp_path, "2d__T", [])
    add_run(tmp_path, "3d_cascade__T", [5.0], previous_model="2d__T")
    assert seconds_of(tmp_path, ["2d__T", "3d_cascade__T"], ["0"]) == {}


def test_what_a_model_builds_on_is_counted(tmp_path):
    add_run(tmp_path, "3d_lowres__T", [2.0])
    add_run(tmp_path, "3d_cascade__T", [5.0], previous_model="3d_lowres__T")
    add_run(tmp_path, "ensemble__Meta", [1.0], trainer_options={"kind": "meta", "members": ["3d_lowres__T", "3d_cascade__T"]})
    add_run(tmp_path, "ensemble__Fusion", [9.0], trainer_options={"kind": "fusion", "members": ["3d_lowres__T", "3d_cascade__T"]})
    names = ["3d_lowres__T", "3d_cascade__T", "ensemble__Meta", "ensemble__Fusion"]
    assert list(seconds_of(tmp_path, names, ["0"]).values()) == [2.0, 7.0, 10.0, 9.0]


def test_candidates_that_take_longer_are_left_out(caplog):
    candidates = [Candidate(("a",)), Candidate(("b",)), Candidate(("c",)), Candidate(("a", "b"))]
    with caplog.at_level(logging.WARNING):
        assert [one.name for one in _quick(candidates, {"a": 1.0, "b": 2.0}, 2.5)] == ["a", "b"]
    assert "nobody measured how long they take: c" in caplog.text
    with pytest.raises(ValueError, match="at most 0.5 seconds a case: no model is that quick; measured: a 1, b 2, a \\+ b 3"):
        _quick(candidates, {"a": 1.0, "b": 2.0}, 0.5)


def test_models_are_judged_by_one_metric_even_where_one_lacks_it(tmp_path):
    """The new model, with distances, is the better one; -3 mm must not be compared with a Dice of 0.5."""
    write_json(tmp_path / "new__T" / "fold_0" / "validation" / "scores.json", [Score("a", "liver", 0.9, 0.8, 5, 5, {"hd_border": 3.0})])
    write_json(tmp_path / "old__T" / "fold_1" / "validation" / "scores.json", [Score("b", "liver", 0.5, 0.3, 5, 5)])
    folds = {"new__T": ["0", "all"], "old__T": ["1"]}
    assert mean_scores_of_own_folds(tmp_path, folds, "hd_border") == {"new__T": {"liver": 0.9}, "old__T": {"liver": 0.5}}
    assert mean_scores_of_own_folds(tmp_path, {"new__T": ["0"]}, "hd_border") == {"new__T": {"liver": -3.0}}


def test_scores_of_another_version_are_named(tmp_path):
    path = tmp_path / "2d__T" / "fold_0" / "validation" / "scores.json"
    write_json(path, [{"case": "a", "organ": "liver", "hausdorff": 3.0}])
    with pytest.raises(ValueError, match="scores.json: cannot be read"):
        stored_scores(tmp_path, "2d__T", "0")


def test_a_choice_without_evidence_can_still_be_told():
    from autoseg.selection.choice_table import describe_choice

    told = describe_choice(Choice({"liver": ("2d__T",)}, ("all",), {}, 0, {"liver": "2d__T: the only model of it"}))
    assert told.splitlines()[:2] == ["liver  ->  2d__T", "  why: 2d__T: the only model of it"]
