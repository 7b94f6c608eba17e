"""Stored seconds of models with all that they build on, and stored scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import make_plan, record_run

from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import write_json
from autoseg.schema import EnsembleRecord, Score
from autoseg.schema.run_record import ValidationSettings
from autoseg.selection.stored_scores import scores_of_folds, seconds_of, validated_otherwise
from autoseg.selection.uncompared import mean_scores_of_each


def add_run(results: Path, model: str, seconds: list[float], fold: str = "0", **changes: object) -> None:
    run = record_run(ModelFolder(results / model).run(fold), make_plan(), **changes)
    if seconds:
        write_json(run.timings_file, {f"c{i}": value for i, value in enumerate(seconds)})


def test_seconds_are_the_mean_over_the_cases_of_the_folds_with_what_a_model_builds_on(tmp_path):
    add_run(tmp_path, "3d_lowres__T", [1.0, 2.0])
    add_run(tmp_path, "3d_lowres__T", [3.0, 6.0], fold="1")
    assert seconds_of(tmp_path, ["3d_lowres__T"], ["0", "1"]) == {"3d_lowres__T": 3.0}
    add_run(tmp_path, "3d_cascade__T", [5.0], previous_model="3d_lowres__T")
    members = ("3d_lowres__T", "3d_cascade__T")
    add_run(tmp_path, "ensemble__Meta", [1.0], ensemble=EnsembleRecord("meta", members, "3d_lowres__T"))
    add_run(tmp_path, "ensemble__Fusion", [9.0], ensemble=EnsembleRecord("fusion", members, "3d_lowres__T"))
    names = [*members, "ensemble__Meta", "ensemble__Fusion"]
    assert list(seconds_of(tmp_path, names, ["0"]).values()) == [1.5, 6.5, 9.0, 9.0]


def test_models_that_were_not_measured_are_missing(tmp_path):
    add_run(tmp_path, "2d__T", [])
    add_run(tmp_path, "3d_cascade__T", [5.0], previous_model="2d__T")
    assert seconds_of(tmp_path, ["2d__T", "3d_cascade__T"], ["0"]) == {}


def test_models_are_judged_by_one_metric_even_where_one_lacks_it(tmp_path):
    """The new model, with distances, is the better one; -3 mm must not be compared with a Dice of 0.5."""
    write_json(ModelFolder(tmp_path / "new__T").run("0").scores_file, [Score("a", "liver", 0.9, 0.8, 5, 5, {"hd_border": 3.0})])
    write_json(ModelFolder(tmp_path / "old__T").run("1").scores_file, [Score("b", "liver", 0.5, 0.3, 5, 5)])
    folds = {"new__T": ["0", "all"], "old__T": ["1"]}
    assert mean_scores_of_each(tmp_path, folds, "hd_border") == {"new__T": {"liver": 0.9}, "old__T": {"liver": 0.5}}
    assert mean_scores_of_each(tmp_path, {"new__T": ["0"]}, "hd_border") == {"new__T": {"liver": -3.0}}


def test_scores_of_another_version_are_named(tmp_path):
    write_json(ModelFolder(tmp_path / "2d__T").run("0").scores_file, [{"case": "a", "organ": "liver", "hausdorff": 3.0}])
    with pytest.raises(ValueError, match="scores.json: damaged, or from another version"):
        scores_of_folds(tmp_path, {"2d__T": ["0"]})


def test_models_that_were_not_validated_in_full_are_told_beside_those_that_were(tmp_path):
    add_run(tmp_path, "3d_fullres__T", [])
    add_run(tmp_path, "ensemble__Meta", [], ensemble=EnsembleRecord("meta", ("3d_fullres__T",), "3d_fullres__T"))
    names = ["3d_fullres__T", "3d_fullres__Short", "ensemble__Meta"]
    assert validated_otherwise(tmp_path, names, ["0", "1"]) == {}
    add_run(tmp_path, "3d_fullres__Short", [], validation=ValidationSettings((), 0.75))
    assert validated_otherwise(tmp_path, names, ["0", "1"]) == {
        "3d_fullres__T": "8 mirrored copies and tiles 0.5 of the patch apart",
        "3d_fullres__Short": "no mirrored copies and tiles 0.75 of the patch apart",
    }
