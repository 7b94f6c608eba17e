"""How ``--fast`` predicts with a cascade."""

from __future__ import annotations

from pathlib import Path

from factories import make_configuration, make_plan, record_run

from autoseg.inference.trained_model import InferenceOptions
from autoseg.pipeline.fast_prediction import fast_options
from autoseg.runtime.runs import ModelFolder
from autoseg.schema import Choice

STAGE, CASCADE = "3d_lowres__Trainer", "3d_cascade__Trainer"


def test_the_first_stage_of_a_cascade_is_one_fold_too(tmp_path: Path) -> None:
    first = make_configuration(name="3d_lowres", data="3d_lowres")
    plan = make_plan(make_configuration(), first, make_configuration(name="3d_cascade", data="3d_cascade", previous_stage="3d_lowres"))
    for fold in ("0", "1"):
        record_run(ModelFolder(tmp_path / STAGE).run(fold), plan, [], configuration=first, fold=fold)
    second = {"configuration": plan.configurations["3d_cascade"], "previous_model": STAGE}
    record_run(ModelFolder(tmp_path / CASCADE).run("1"), plan, [], fold="1", **second)
    choice = Choice({"ball": (CASCADE,)}, ("1",), {}, 0)
    found = fast_options(InferenceOptions(folds=("1",)), choice, tmp_path, CASCADE)
    assert (found.stage_folds, found.mirror, found.coarse_to_fine, found.step) == (("1",), False, False, 0.75)
    record_run(ModelFolder(tmp_path / CASCADE).run("2"), plan, [], fold="2", **second)
    assert fast_options(InferenceOptions(folds=("2",)), choice, tmp_path, CASCADE).stage_folds is None, "a fold that it lacks"
