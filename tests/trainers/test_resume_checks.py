"""What may follow a training that was started: the same data, alike folds, and a checkpoint to start from that is really there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from factories import labels, make_configuration, make_job, make_plan
from torch import nn

from autoseg.runtime.case_contents import note_contents
from autoseg.runtime.checkpoints import save_checkpoint
from autoseg.runtime.runs import FINAL_CHECKPOINT, ModelFolder, Run
from autoseg.runtime.serialization import write_json
from autoseg.schema import Case
from autoseg.schema.settings import TrainSettings
from autoseg.trainers.resume_checks import (
    check_pretrained,
    check_resumable,
    check_same_model,
    find_pretrained,
    warn_if_options_differ,
    width_of,
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


class TestPretrained:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        for fold in ("fold_0", "fold_1"):
            save_checkpoint(tmp_path / "model" / fold / FINAL_CHECKPOINT, {"network": nn.Linear(2, 3).state_dict()}, {})
        return tmp_path / "model"

    def test_a_file_a_fold_or_a_model(self, model, monkeypatch):
        monkeypatch.chdir(model)
        assert find_pretrained(None) is None
        assert find_pretrained(Path("fold_1") / FINAL_CHECKPOINT) == model / "fold_1" / FINAL_CHECKPOINT
        assert find_pretrained(Path("fold_1")) == model / "fold_1" / FINAL_CHECKPOINT
        assert find_pretrained(model) == model / "fold_0" / FINAL_CHECKPOINT
        (model / "fold_1").rename(model / "fold_all")
        assert find_pretrained(model) == model / "fold_all" / FINAL_CHECKPOINT

    def test_what_is_not_there_or_no_network_is_refused(self, model):
        with pytest.raises(ValueError, match=r"typo\.pt: checkpoint not found"):
            find_pretrained(model / "typo.pt")
        (model / "old").mkdir()
        with pytest.raises(ValueError, match=r"old/checkpoint_final\.pt: checkpoint not found"):
            find_pretrained(model / "old")
        save_checkpoint(model / "other.pt", {"optimizer": {}}, {})
        with pytest.raises(ValueError, match="expected a checkpoint with a network, found optimizer"):
            find_pretrained(model / "other.pt")

    def test_little_that_fits_is_a_warning_and_nothing_is_refused(self, model, caplog):
        path = find_pretrained(model)
        check_pretrained(nn.Linear(2, 3), path)
        check_pretrained(nn.Linear(4, 5), None)
        assert "Only" not in caplog.text
        check_pretrained(nn.Linear(4, 3), path)  # the bias fits
        assert "Only 20 % of this network's numbers" in caplog.text
        with pytest.raises(ValueError, match="not one weight fits"):
            check_pretrained(nn.Linear(4, 5), path)
        assert torch.load(path, weights_only=True)

    def test_the_width_is_that_of_the_run_it_comes_from(self, model):
        checkpoint = model / "fold_0" / FINAL_CHECKPOINT
        assert width_of(None) == width_of(checkpoint) == 1.0
        write_json(checkpoint.with_name("run.json"), make_job(make_plan(make_configuration(width=0.5))))
        assert width_of(checkpoint) == 0.5


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
