"""Ensembles from trained models to predictions: what they learn from, what they learn, and that they are models like any other."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import story_data as data
import torch

import autoseg
from autoseg import cli
from autoseg.checkpoints import load_checkpoint, save_checkpoint
from autoseg.evaluation.overlap import score_case
from autoseg.images import read_label
from autoseg.inference.export import Logits, export_labels
from autoseg.inference.quantised import keep, kept
from autoseg.inference.trained import InferenceOptions, TrainedModel, load_model
from autoseg.label_subsets import translate
from autoseg.model import Choice, Configuration, Plan, Score, Split
from autoseg.naming import FINAL_CHECKPOINT
from autoseg.networks import build_network
from autoseg.pipeline import EnsembleSettings, PlanSettings, PredictSettings, train_ensemble
from autoseg.pipeline.variants import of_organs
from autoseg.records import from_plain, read_json, write_json
from autoseg.storage import Store
from autoseg.trainers.job import TrainingJob, TrainingOptions

NAME = "Dataset003_Tiny"
CPU = torch.device("cpu")
SURE = 4.0
"""Logit of a model that knows."""

Says = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""From the true mask of an organ ``(Z, Y, X)`` to the logit of that organ."""


Planned = Callable[[Configuration], Configuration]
"""From the planned configuration to that of a model."""


def right(sure: float = SURE) -> Says:
    return lambda mask, rng: np.where(mask, sure, -sure)


def wrong_in_a_corner(sure: float = SURE) -> Says:
    """Sees the organ also where it is not, and is sure of it."""

    def say(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seen = mask.copy()
        seen[:, : mask.shape[1] // 3, : mask.shape[2] // 3] = True
        return np.where(seen, sure, -sure)

    return say


def speckled(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One voxel in five is wrong, as surely as the others are right."""
    return np.where(mask ^ (rng.random(mask.shape) < 0.2), SURE, -SURE)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ten patients, planned and preprocessed for 2d; plots are left out."""
    home = tmp_path_factory.mktemp("ensembles")
    data.make_volumes(home / "raw" / NAME, n_train=10, n_test=1, numTraining=10, groups=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())
        autoseg.plan_and_preprocess(3, PlanSettings(configurations=("2d",), memory_gb=0.2, workers=0), home=home)
        yield home


@pytest.fixture
def home(planned: Path, tmp_path: Path) -> Path:
    """The same data, nothing trained; what ensembles preprocess is removed afterwards."""
    for part in ("raw", "preprocessed"):
        (tmp_path / part).symlink_to(planned / part)
    return tmp_path


def results(home: Path) -> Path:
    return home / "results" / NAME


def splits(home: Path) -> list[Split]:
    return read_json(home / "preprocessed" / NAME / "splits.json", list[Split])


def small(configuration: Configuration) -> Configuration:
    grid = {"strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2}
    options = {"features": [4, 8], "convs_per_stage": [1, 1], "decoder_convs": [1], **grid}
    return replace(configuration, network_options=options, patch_size=(16, 16), batch_size=2)


def add_model(home: Path, organs: Mapping[str, Says], *, tag: str = "", folds: str = "01234", seen: Planned = small) -> str:
    """A model with random weights that, so its validation says, segments `organs` as told. Returns its name."""
    plan, word = of_organs(read_json(home / "preprocessed" / NAME / "plan.json", Plan), tuple(organs))
    one = seen(plan.configurations["2d"])
    name = "__".join(filter(None, ("2d", "Trainer", word, tag)))
    store = Store(home / "preprocessed" / NAME / "2d")
    write_json(results(home) / "plan.json", read_json(home / "preprocessed" / NAME / "plan.json", Plan))
    for fold in folds:
        run, split, scores = results(home) / name / f"fold_{fold}", splits(home)[int(fold)], []
        job = TrainingJob(plan, one, fold, split, autoseg.model.Budget("iterations", 1, 1), 0, TrainingOptions())
        for case in split.val:
            stored = store.load(case)
            truth = translate(np.asarray(stored.segmentation[:]), plan.stored_labels, plan.labels)
            rng = np.random.default_rng([int(fold), *case.encode()])
            ratios = [say(truth == value, rng) for value, say in enumerate(organs.values(), start=1)]
            logits = Logits(torch.from_numpy(np.stack([np.zeros(truth.shape), *ratios])), stored.trace)
            keep(run / "validation", case, logits, plan.labels)
            found = export_labels([kept(run / "validation", case)], plan.labels)
            reference = read_label(home / "raw" / NAME / "labelsTr" / f"{case}.nii.gz").array
            reference = np.select([reference == member[0] for member in plan.labels.members], range(1, len(organs) + 1), 0)
            scores += score_case(case, found, reference, plan.labels)
        write_json(run / "validation" / "scores.json", scores)
        write_json(run / "run.json", job)
        torch.manual_seed(int(fold))
        network = build_network(one.network, dim=2, in_channels=1, out_channels=plan.labels.n_outputs, **one.network_options)
        save_checkpoint(run / FINAL_CHECKPOINT, {"network": network.state_dict()}, {})
    return name


def fit(home: Path, kind: str, *members: str, **settings: object) -> dict[str, list[Score]]:
    return train_ensemble(3, EnsembleSettings(kind=kind, members=members, device="cpu", **settings), home=home)


def mean(scores: list[Score], organ: str) -> float:
    return float(np.nanmean([score.dice for score in scores if score.organ == organ]))


def stored_mean(home: Path, model: str, organ: str, fold: str) -> float:
    path = results(home) / model / f"fold_{fold}" / "validation" / "scores.json"
    return mean(from_plain(read_json(path, list), list[Score]), organ)


def folder_of(home: Path, kind: str) -> Path:
    (found,) = results(home).glob(f"ensemble__{kind.capitalize()}*")
    return found


def predict(home: Path, out: Path, **settings: object) -> np.ndarray:
    asked = PredictSettings(mirror=False, device="cpu", **settings)
    image = home / "raw" / NAME / "imagesTs" / "case_10_0000.nii.gz"
    assert autoseg.predict_folder(image, out, asked, home=home) == {}
    return read_label(out / "case_10.nii.gz").array


class TestWhatIsLearnt:
    def test_argmax_of_models_that_are_right_is_right(self, home: Path) -> None:
        scores = fit(home, "argmax", add_model(home, {"ball": right()}, folds="01"), add_model(home, {"bar": right()}, folds="01"))
        assert list(scores) == ["0", "1"]
        assert min(score.dice for some in scores.values() for score in some) > 0.95

    def test_argmax_where_two_organs_are_claimed_takes_the_surer(self, home: Path) -> None:
        """The bar's model claims a corner of the ball; how sure it is decides."""
        bar = add_model(home, {"bar": wrong_in_a_corner(2.0)}, folds="0")
        surer = fit(home, "argmax", add_model(home, {"ball": right(4.0)}, folds="0"), bar, folds=("0",))["0"]
        less = fit(home, "argmax", add_model(home, {"ball": right(1.0)}, tag="shy", folds="0"), bar, folds=("0",))["0"]
        assert mean(surer, "ball") > mean(less, "ball")
        assert mean(surer, "ball") > 0.95

    def test_logits_learn_to_trust_the_better_of_two_models(self, home: Path) -> None:
        members = (
            add_model(home, {"ball": right(1.0)}, folds="012"),
            add_model(home, {"ball": wrong_in_a_corner(4.0)}, tag="rash", folds="012"),
        )
        assert stored_mean(home, members[0], "ball", "0") > 0.95
        before = mean(fit(home, "argmax", *members, folds=("0",))["0"], "ball")
        after = mean(fit(home, "logits", *members, folds=("0",), iterations=100)["0"], "ball")
        assert before < 0.8
        assert after > 0.95
        weight = load_checkpoint(folder_of(home, "logits") / "fold_0" / FINAL_CHECKPOINT)[0]["network"]["conv.weight"].flatten(1)
        assert weight[1, 0] - weight[0, 0] > weight[1, 1] - weight[0, 1]

    def test_meta_improves_on_a_model_that_is_wrong_here_and_there(self, home: Path) -> None:
        """A voxel alone cannot tell; its neighbours can."""
        member = add_model(home, {"ball": speckled}, folds="012")
        before = stored_mean(home, member, "ball", "0")
        assert before < 0.8
        assert mean(fit(home, "logits", member, folds=("0",), iterations=10)["0"], "ball") == pytest.approx(before, abs=0.02)
        assert mean(fit(home, "meta", member, folds=("0",), iterations=60)["0"], "ball") > before + 0.1

    def test_multi_takes_each_organ_from_its_best_model(self, home: Path) -> None:
        good = add_model(home, {"ball": right()}, folds="01"), add_model(home, {"ball": wrong_in_a_corner(), "bar": right()}, folds="01")
        add_model(home, {"bar": speckled}, folds="01")
        scores = fit(home, "multi")
        job = read_json(folder_of(home, "multi") / "fold_0" / "run.json", TrainingJob)
        assert set(job.trainer_options["members"]) == set(good)
        assert min(mean(some, organ) for some in scores.values() for organ in ("ball", "bar")) > 0.95

    def test_multi_chooses_for_a_fold_by_the_other_folds(self, home: Path) -> None:
        """A model that is good in fold 0 alone must not be chosen there for that."""
        steady = add_model(home, {"ball": lambda mask, rng: np.where(mask & (rng.random(mask.shape) < 0.9), SURE, -SURE)})
        lucky = add_model(home, {"ball": right()}, tag="lucky", folds="0")
        for fold in "1234":
            add_model(home, {"ball": speckled}, tag="lucky", folds=fold)
        scores = fit(home, "multi")
        assert stored_mean(home, lucky, "ball", "0") > stored_mean(home, steady, "ball", "0")
        assert mean(scores["0"], "ball") == pytest.approx(stored_mean(home, steady, "ball", "0"), abs=1e-3)

    def test_fusion_fits_heads_on_held_out_cases_in_two_halves(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0")
        scores = fit(home, "fusion", *members, folds=("0",), iterations=6)["0"]
        run = folder_of(home, "fusion") / "fold_0"
        held_out = set(splits(home)[0].val)
        assert {score.case for score in scores} == held_out
        states = [load_checkpoint(run / f"half_{half}" / FINAL_CHECKPOINT)[0]["network"] for half in (0, 1)]
        whole = load_checkpoint(run / FINAL_CHECKPOINT)[0]["network"]
        assert set(whole) == {"head.weight", "head.bias"}
        assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"])
        assert torch.allclose(whole["head.weight"], (states[0]["head.weight"] + states[1]["head.weight"]) / 2)

    def test_fused_networks_may_see_different_windows(self, home: Path, tmp_path: Path) -> None:
        def windowed(plan: Configuration) -> Configuration:
            return replace(small(plan), normalization=("window:300:100",), data="2d_w300_l100")

        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0", seen=windowed)
        scores = fit(home, "fusion", *members, iterations=2)["0"]
        job = read_json(folder_of(home, "fusion") / "fold_0" / "run.json", TrainingJob)
        assert len(job.plan.channels) == 2
        assert {score.organ for score in scores} == {"ball", "bar"}
        case, folders = splits(home)[0].val[0], (job.configuration.data, "2d", "2d_w300_l100")
        joined, plain, window = (Store(home / "preprocessed" / NAME / name).load(case).image[:] for name in folders)
        assert np.array_equal(joined, np.concatenate([plain, window]))
        assert predict(home, tmp_path / "out", model=folder_of(home, "fusion").name).max() > 0

    def test_equal_seeds_give_equal_weights(self, home: Path) -> None:
        member = add_model(home, {"ball": speckled}, folds="01")
        states = []
        for seed in (0, 0, 1):
            fit(home, "meta", member, folds=("0",), iterations=4, seed=seed, restart=True)
            states.append(load_checkpoint(folder_of(home, "meta") / "fold_0" / FINAL_CHECKPOINT)[0]["network"])
        same, other = ([torch.equal(value, one[name]) for name, value in states[0].items()] for one in states[1:])
        assert all(same)
        assert not all(other)


class TestWhatIsLearntFrom:
    def test_no_case_of_the_fold_and_each_by_networks_that_have_not_seen_it(self, home: Path) -> None:
        member = add_model(home, {"ball": right()})
        fit(home, "logits", member, folds=("2",), iterations=2)
        job = read_json(folder_of(home, "logits") / "fold_2" / "run.json", TrainingJob)
        own = splits(home)[2].val
        assert job.split.val == tuple(sorted(own))
        assert set(job.split.train) == {case for split in splits(home) for case in split.val} - set(own)
        store = Store(home / "preprocessed" / NAME / job.configuration.data)
        for fold, split in enumerate(splits(home)):
            for case in split.val:
                mine = kept(results(home) / member / f"fold_{fold}" / "validation", case)
                assert np.array_equal(np.asarray(store.load(case).image[:])[0] > 6.2345, np.asarray(mine.array[:])[1] > 127)

    def test_models_trained_on_what_others_hold_out_are_refused(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0")
        path = results(home) / members[1] / "fold_0" / "run.json"
        record = json.loads(path.read_text())
        record["split"] = {"train": record["split"]["val"], "val": record["split"]["train"]}
        path.write_text(json.dumps(record))
        with pytest.raises(ValueError, match="would learn from what it should not know"):
            fit(home, "argmax", *members)

    def test_folds_that_every_member_has_are_used(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="012"), add_model(home, {"bar": right()}, folds="0124")
        assert list(fit(home, "argmax", *members)) == ["0", "1", "2"]

    def test_a_model_of_fewer_folds_is_no_member_by_itself(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        member = add_model(home, {"ball": speckled}, folds="01")
        few = add_model(home, {"ball": right()}, tag="few", folds="0")
        with caplog.at_level(logging.WARNING, "autoseg"):
            fit(home, "logits", folds=("0",), iterations=1)
        assert f"{few} is no member: its folds (0) are too few" in caplog.text
        assert read_json(folder_of(home, "logits") / "fold_0" / "run.json", TrainingJob).trainer_options["members"] == [member]

    def test_missing_folds_are_listed_with_the_command_that_trains_them(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, tag="wide", folds="1")
        with pytest.raises(ValueError, match="2 or more folds that every member") as caught:
            fit(home, "logits", *members)
        assert f"autoseg_train {NAME} 2d 1 --organs ball\n" in str(caught.value)
        assert f"autoseg_train {NAME} 2d 0 --organs bar --tag wide" in str(caught.value)
        with pytest.raises(ValueError, match="fold 3 needs members"):
            fit(home, "argmax", members[0], folds=("3",))

    def test_probabilities_that_were_removed_are_missed(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        member = add_model(home, {"ball": right()}, folds="01")
        one, other = sorted(splits(home)[0].val)
        (results(home) / member / "fold_0" / "validation" / f"{one}.b2nd").unlink()
        with caplog.at_level(logging.WARNING):
            assert {score.case for score in fit(home, "argmax", member, folds=("0",))["0"]} == {other}
        assert f"not every member's probabilities are there: {one}" in caplog.text
        (results(home) / member / "fold_1" / "validation").joinpath(f"{splits(home)[1].val[0]}.b2nd").unlink()
        (results(home) / member / "fold_1" / "validation").joinpath(f"{splits(home)[1].val[1]}.b2nd").unlink()
        with pytest.raises(ValueError, match=r"no case of which every member's probabilities \(.b2nd\) are there"):
            fit(home, "argmax", member, folds=("1",))


class TestWhatIsRefused:
    def test_unknown_names_are_answered_with_those_there(self, home: Path) -> None:
        member = add_model(home, {"ball": right()}, folds="01")
        for settings, message in (
            ({"kind": "meat"}, "Did you mean 'meta'"),
            ({"kind": "argmax", "members": ("2d__Trainer__bal",)}, "Did you mean '2d__Trainer__ball'"),
            ({"kind": "argmax", "members": ("ensemble__Meta",)}, "not ensembles"),
            ({"kind": "argmax", "members": (member,), "organs": ("bar",)}, "organ of the members: expected one of ball"),
            ({"kind": "meta", "iterations": -1}, "expected a positive number"),
        ):
            with pytest.raises(ValueError, match=message):
                train_ensemble(3, EnsembleSettings(**settings, device="cpu"), home=home)
        assert not list(results(home).glob("ensemble*"))

    def test_without_models_the_message_says_what_to_train(self, home: Path) -> None:
        with pytest.raises(ValueError, match="Run: autoseg_train"):
            fit(home, "multi")

    def test_features_on_different_grids_cannot_be_fused(self, home: Path) -> None:
        one = add_model(home, {"ball": right()}, folds="0")
        other = add_model(home, {"bar": right()}, folds="0", seen=lambda plan: replace(small(plan), spacing=(3.0, 3.0)))
        with pytest.raises(ValueError, match="layer fusion: expected members on the same grid"):
            fit(home, "fusion", one, other)

    def test_networks_that_cannot_be_cut_leave_nothing_behind(self, home: Path) -> None:
        def dense(plan: Configuration) -> Configuration:
            return replace(small(plan), network="dense_vnet", network_options={})

        member = add_model(home, {"ball": right()}, folds="0", seen=dense)
        with pytest.raises(ValueError, match=f"{member}: DenseVNet: its logits are no 1x1 convolution"):
            fit(home, "fusion", member)
        assert not list(results(home).glob("ensemble*"))


class TestModelsLikeAnyOther:
    @pytest.mark.parametrize("kind", ["argmax", "multi"])
    def test_predicts_what_its_members_say(self, home: Path, tmp_path: Path, kind: str) -> None:
        members = add_model(home, {"ball": right()}, folds="01"), add_model(home, {"bar": right()}, folds="01")
        fit(home, kind, *members)
        found = predict(home, tmp_path / kind, model=folder_of(home, kind).name)
        claimed = np.any([predict(home, tmp_path / name, model=name) > 0 for name in members], axis=0)
        assert 0.02 < claimed.mean() < 0.98, "random networks say something"
        assert np.mean((found > 0) == claimed) > 0.97

    @pytest.mark.parametrize("kind", ["logits", "meta", "fusion"])
    def test_predicts_alike_in_little_memory(self, home: Path, tmp_path: Path, kind: str) -> None:
        fit(home, kind, add_model(home, {"ball": right()}, folds="01"), add_model(home, {"bar": right()}, folds="01"), iterations=1)
        found, frugal = (
            predict(home, tmp_path / f"{kind}{low}", model=folder_of(home, kind).name, low_memory=low) for low in (False, True)
        )
        assert set(np.unique(found)) <= {0, data.BALL, data.BAR}
        assert 0.02 < (found > 0).mean() < 0.98
        assert np.mean(found == frugal) > 0.98

    def test_a_member_is_asked_once_though_it_is_wanted_for_itself_and_by_two_ensembles(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ball, bar = add_model(home, {"ball": right()}, folds="01"), add_model(home, {"bar": right()}, folds="01")
        for kind in ("argmax", "multi"):
            fit(home, kind, ball, bar)
        names = [folder_of(home, kind).name for kind in ("argmax", "multi")]
        asked, ask = [], TrainedModel._compute
        monkeypatch.setattr(TrainedModel, "_compute", lambda self, *rest: asked.append(self.name) or ask(self, *rest))
        for organs in ({"ball": (names[0],), "bar": (names[1],)}, {"ball": (names[0],), "bar": (bar,)}):
            asked.clear()
            write_json(results(home) / "choice.json", Choice(organs, ("0", "1"), {}, 4))
            predict(home, tmp_path / str(len(list(tmp_path.iterdir()))))
            assert sorted(asked) == [ball, bar]

    def test_stands_among_the_candidates_of_the_choice(self, home: Path) -> None:
        members = add_model(home, {"ball": right(), "bar": speckled}, folds="01"), add_model(home, {"bar": right()}, folds="01")
        scores = fit(home, "multi")
        choice = autoseg.find_best_configuration(3, home=home, max_members=1)
        name = folder_of(home, "multi").name
        assert set(choice.table) == {*members, name}
        for organ in ("ball", "bar"):
            assert choice.table[name][organ] == pytest.approx(mean(scores["0"] + scores["1"], organ))

    def test_costs_what_its_members_cost_too(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0")
        one, other = sorted(splits(home)[0].val)
        for name, seconds in zip(members, ({one: 10.0, other: 20.0}, {one: 5.0}), strict=True):
            write_json(results(home) / name / "fold_0" / "validation" / "timings.json", seconds)
        fit(home, "argmax", *members)
        validation = folder_of(home, "argmax") / "fold_0" / "validation"
        own, whole = (read_json(validation / file, dict) for file in ("timings_own.json", "timings.json"))
        assert set(own) == {one, other}
        assert whole == {one: pytest.approx(15 + own[one], abs=2e-3)}, "what was not measured of every member is not known"

    def test_a_fold_alone_votes_with_its_members_fold(self, home: Path) -> None:
        fit(home, "argmax", add_model(home, {"ball": right()}, folds="01"))
        model = load_model(folder_of(home, "argmax"), CPU, InferenceOptions(("1",)))
        assert [len(member.predictor.networks) for member in model.members] == [1]
        assert model.key != load_model(folder_of(home, "argmax"), CPU, InferenceOptions(("0",))).key

    def test_organs_of_some_only_and_defaults(self, home: Path) -> None:
        """Without --members the best model of each organ is a member."""
        best = add_model(home, {"ball": right()}, folds="01"), add_model(home, {"bar": right()}, folds="01")
        add_model(home, {"ball": speckled, "bar": speckled}, folds="01")
        fit(home, "argmax", folds=("0",))
        assert set(read_json(folder_of(home, "argmax") / "fold_0" / "run.json", TrainingJob).trainer_options["members"]) == set(best)
        assert {score.organ for score in fit(home, "logits", organs=("bar",), iterations=1)["0"]} == {"bar"}
        assert folder_of(home, "logits").name == "ensemble__Logits__bar"


class TestGoingOn:
    def test_what_is_finished_stays_and_what_was_begun_keeps_its_members(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        first = add_model(home, {"ball": speckled}, folds="01")
        fit(home, "argmax", folds=("0",))
        before = data.snapshot(folder_of(home, "argmax") / "fold_0")
        add_model(home, {"ball": right()}, tag="better", folds="01")
        with caplog.at_level(logging.INFO, "autoseg"):
            fit(home, "argmax", folds=("0", "1"))
        assert "finished already" in caplog.text
        assert data.snapshot(folder_of(home, "argmax") / "fold_0") == before
        assert read_json(folder_of(home, "argmax") / "fold_1" / "run.json", TrainingJob).trainer_options["members"] == [first]
        fit(home, "argmax", restart=True)
        assert read_json(folder_of(home, "argmax") / "fold_1" / "run.json", TrainingJob).trainer_options["members"] == [f"{first}__better"]

    def test_an_interrupted_training_goes_on_to_the_same_weights(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        member = add_model(home, {"ball": speckled}, folds="01")
        fit(home, "logits", member, folds=("0",), iterations=50)
        whole = load_checkpoint(folder_of(home, "logits") / "fold_0" / FINAL_CHECKPOINT)[0]["network"]
        monkeypatch.setattr("autoseg.trainers.trainer.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("autoseg.trainers.trainer.Trainer.finish_round", stop_after(1))
            with pytest.raises(KeyboardInterrupt):
                fit(home, "logits", member, folds=("0",), iterations=50, restart=True)
        fit(home, "logits", member, folds=("0",))
        again = load_checkpoint(folder_of(home, "logits") / "fold_0" / FINAL_CHECKPOINT)[0]["network"]
        assert all(torch.equal(value, again[name]) for name, value in whole.items())


def stop_after(rounds: int) -> Callable[..., None]:
    from autoseg.trainers.trainer import Trainer

    finish = Trainer.finish_round

    def stop(self: Trainer, bar: object) -> None:
        finish(self, bar)
        if self.round >= rounds:
            raise KeyboardInterrupt

    return stop


def test_the_command_prints_the_scores(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_model(home, {"ball": right()}, folds="0")
    add_model(home, {"bar": right()}, folds="0")
    assert cli.train_ensemble(["3", "--kind", "argmax", "--folds", "0", "--device", "cpu", "--home", str(home)]) == 0
    printed = capsys.readouterr().out
    assert "ball" in printed
    assert "bar" in printed
    assert cli.train_ensemble(["3", "--kind", "meta", "--folds", "0", "--device", "cpu", "--home", str(home)]) == 2
    assert "autoseg_train" in capsys.readouterr().err
