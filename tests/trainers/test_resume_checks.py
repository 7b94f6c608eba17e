"""What may follow a training that was started: the same data, alike folds, and a checkpoint to start from that is really there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from factories import labels, make_configuration, make_job, make_plan

from autoseg.runtime.case_contents import note_contents
from autoseg.runtime.runs import ModelFolder, Run
from autoseg.runtime.serialization import write_json
from autoseg.schema import Case
from autoseg.schema.settings import PlanSettings, TrainSettings
from autoseg.trainers.resume_checks import (
    check_resumable,
    check_same_model,
    warn_if_options_differ,
)
from autoseg.trainers.run_options import sibling_configuration


@pytest.fixture
def started(tmp_path: Path):
    """Fold 0, started with a plan; and the plan."""
    plan = make_plan()
    run = ModelFolder(tmp_path / "3d_fullres__Trainer").run("0")
    write_json(run.record_file, make_job(plan))
    return run, plan


def check(run: Run, plan, configuration=None, **options) -> None:
    check_resumable(run, plan, configuration or plan.configurations["3d_fullres"], **options)


def test_the_same_plan_goes_on(started):
    run, plan = started
    check(run, plan)
    check(run.model.run("1"), plan)
    smaller = dataclasses.replace(plan.configurations["3d_fullres"], patch_size=(4, 4, 4), batch_size=9)
    check(run, plan, smaller)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": labels(ball=2, block=6)},
        {"organs": ["ball"]},
        {"transpose": (1, 0, 2)},
        {"spacing": (2.0, 2.0, 2.0)},
        {"normalization": ("ct",)},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("fold", ["0", "1"])
def test_other_data_is_refused_for_the_run_and_its_siblings(started, change, fold):
    run, plan = started
    configuration, (what,) = plan.configurations["3d_fullres"], change
    if what == "organs":  # the models' folders may have the same name: of many organs it says only how many
        plan = dataclasses.replace(plan, labels=labels(ball=2), data_labels=plan.labels)
    elif hasattr(configuration, what):
        configuration = dataclasses.replace(configuration, **change)
    else:
        plan = dataclasses.replace(plan, **change)
    with pytest.raises(ValueError, match=rf"fold_0/run\.json: this run was started with {what} .*--restart"):
        check(run.model.run(fold), plan, configuration)


def test_the_command_that_plans_as_before_is_named(started):
    run, plan = started
    before = PlanSettings(configurations=("3d_fullres",), spacing=(2.0, 2.0, 2.5), force_lowres=True)
    write_json(run.record_file, dataclasses.replace(run.record(), plan=dataclasses.replace(plan, settings=before)))
    now = dataclasses.replace(plan, settings=PlanSettings(spacing="x2"))
    other = dataclasses.replace(plan.configurations["3d_fullres"], spacing=(9.0, 9.0, 9.0))
    command = f"autoseg_plan_and_preprocess -d {plan.dataset} -c 3d_fullres --spacing 2 2 2.5 --force-lowres"
    with pytest.raises(ValueError, match=rf"Plan as before \({command}\), or start over"):
        check(run, now, other)


@pytest.mark.parametrize("fold", ["0", "1"])
def test_statistics_that_the_normalisation_reads_are_refused_with_what_changed_since(tmp_path: Path, fold: str) -> None:
    configuration, plan = make_configuration(normalization=("ct",)), make_plan()
    run = ModelFolder(tmp_path / "3d_fullres__Trainer").run("0")
    case = Case("c", (tmp_path / "c.nii.gz",), tmp_path / "l.nii.gz", digests=("1:1", "2:2"))
    note_contents(run.record_file, [case])
    write_json(run.record_file, dataclasses.replace(make_job(plan), configuration=configuration))
    other = dataclasses.replace(plan, intensities=(dataclasses.replace(plan.intensities[0], mean=-7.0),))
    check(run.model.run(fold), plan, configuration)
    corrected = dataclasses.replace(case, digests=("1:1", "3:3"))
    with pytest.raises(ValueError, match=r"started with intensities .* \(what changed since: c \(label\)\)"):
        check(run.model.run(fold), other, configuration, cases=[corrected])


def test_a_fold_with_another_network_does_not_join_but_the_run_itself_goes_on(started):
    run, plan = started
    other = dataclasses.replace(plan.configurations["3d_fullres"], network="residual_unet")
    with pytest.raises(ValueError, match="network plain_unet, the plan now says residual_unet"):
        check(run.model.run("1"), plan, other)
    check(run, plan, other)
    options = {**plan.configurations["3d_fullres"].network_options, "features": (7, 9)}
    other = dataclasses.replace(plan.configurations["3d_fullres"], network_options=options)
    with pytest.raises(ValueError, match="autoseg_train .* 1") as caught:
        check(run.model.run("1"), plan, other)
    assert "'features': [7, 9]" in str(caught.value) and "Plan as before" not in str(caught.value)
    assert "strides" not in str(caught.value), "what is the same is not said"


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        (
            {"tag": "liver"},
            {"network": "liver"},
            r"expected a model with network liver, tag \(none\), found one with network \(none\), tag liver",
        ),
        ({"network": "a.b:c"}, {"network": "a:b.c"}, "expected a model with network a:b.c, found one with network a.b:c"),
        ({"trainer": "a.b:C"}, {"trainer": "a:b.C"}, "expected a model with trainer a:b.C, found one with trainer a.b:C"),
        ({"normalization": ("ct",)}, {"normalization": ("zscore",)}, "normalization"),
    ],
)
def test_names_that_only_read_alike_are_not_one_model(tmp_path, then, now, message):
    before, after = ((TrainSettings(**one), make_configuration(normalization=one.get("normalization", ("zscore",)))) for one in (then, now))
    plan, run = make_plan(), ModelFolder(tmp_path / "3d_fullres__Trainer__x").run("0")
    settings, configuration = before
    write_json(
        run.record_file, dataclasses.replace(make_job(plan), trainer=settings.trainer, configuration=configuration, settings=settings)
    )
    check_same_model(run, plan, configuration, settings)
    for one in (run, run.model.run("1")):
        with pytest.raises(ValueError, match=message):
            check_same_model(one, plan, after[1], after[0])
    check_same_model(run, plan, after[1], dataclasses.replace(after[0], restart=True))
    other = dataclasses.replace(plan, labels=labels(ball=2), data_labels=plan.labels)
    with pytest.raises(ValueError, match=r"expected a model with organs \['ball'\], found one with organs \['ball', 'block'\]"):
        check_same_model(run, other, configuration, settings)


def test_a_restarted_run_answers_only_to_its_siblings(started):
    run, plan = started
    other = dataclasses.replace(plan, transpose=(1, 0, 2))
    check(run, other, restart=True)
    run.folder.rename(run.model.run("1").folder)
    with pytest.raises(ValueError, match=r"fold_1/run\.json.*transpose"):
        check(run, other, restart=True)


def test_a_new_fold_takes_the_patch_of_the_others(started):
    run, _ = started
    assert sibling_configuration(run) is None
    assert sibling_configuration(run.model.run("1")).patch_size == (8, 8, 8)


def test_other_options_than_a_run_was_started_with_are_said(started, caplog):
    run, _ = started
    same = make_configuration()
    warn_if_options_differ(run, same, TrainSettings())
    assert caplog.text == ""
    wider = dataclasses.replace(same, network_options={**same.network_options, "features": [8, 16]})
    options = {"loss": "ce", "augmentation": {"noise_probability": 0.0}}
    warn_if_options_differ(run, wider, TrainSettings(trainer_options={"radius": 2}, options=options))
    for said in ("'features': [4, 8]", "trainer options {}, not {'radius': 2}", "loss dice_ce, not ce", "--restart"):
        assert said in caplog.text
