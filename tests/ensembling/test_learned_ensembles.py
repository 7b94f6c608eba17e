"""Ensembles from trained models to predictions: what they learn, that they are models like any other, and that they go on."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import story_data as data
import torch
from ensemble_models import (
    NAME,
    SURE,
    add_model,
    fit,
    folder_of,
    linked_home,
    mean,
    planned_once,
    predict,
    results,
    right,
    run_of,
    small,
    speckled,
    splits,
    stored_mean,
    weights_of,
    wrong_in_a_corner,
)
from scipy.ndimage import binary_dilation, binary_erosion, label
from SimpleITK import GetArrayFromImage

import autoseg
from autoseg import cli
from autoseg.data.descriptions import raw_dataset, write_planned_dataset
from autoseg.ensembling import fusion_trainer as fusion
from autoseg.ensembling import training as ensemble_training
from autoseg.inference.quantised_logits import load_logits
from autoseg.inference.trained_model import InferenceOptions, TrainedModel, load_model
from autoseg.pipeline import PredictSettings
from autoseg.preprocessing.storage import Store, write_array
from autoseg.runtime.checkpoints import load_checkpoint, save_checkpoint
from autoseg.runtime.provenance import record_id, stamp_path
from autoseg.runtime.runs import FINAL_CHECKPOINT, Run
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Choice, Configuration
from autoseg.schema.run_record import EIGHT_BITS, LOG_ODDS
from autoseg.selection.stored_scores import seconds_of
from autoseg.trainers.trainer import Trainer

CPU = torch.device("cpu")


planned = pytest.fixture(scope="module")(planned_once)
home = pytest.fixture(linked_home)


class TestWhatIsLearnt:
    def test_argmax_where_two_organs_are_claimed_takes_the_surer(self, home: Path) -> None:
        """The bar's model claims a corner of the ball; how sure it is decides."""
        bar = add_model(home, {"bar": wrong_in_a_corner(2.0)}, folds="0")
        surer = fit(home, "argmax", add_model(home, {"ball": right(4.0)}, folds="0"), bar, folds=("0",))["0"]
        less = fit(home, "argmax", add_model(home, {"ball": right(1.0)}, tag="shy", folds="0"), bar, folds=("0",))["0"]
        assert mean(surer, "ball") > mean(less, "ball")
        assert mean(surer, "ball") > 0.95

    @pytest.mark.parametrize("sure", [(7.0, 12.0), (12.0, 12.2)])
    def test_argmax_tells_apart_models_that_are_both_sure(self, home: Path, sure: tuple[float, float]) -> None:
        """Of probabilities in eight bits both are 1, and the organ that comes first got the voxel."""
        ball = add_model(home, {"ball": wrong_in_a_corner(sure[0])}, folds="0")
        scores = fit(home, "argmax", ball, add_model(home, {"bar": right(sure[1])}, folds="0"), folds=("0",))["0"]
        assert mean(scores, "bar") > 0.95
        assert run_of(home, "argmax").record().ensemble.stored == LOG_ODDS

    def test_what_an_earlier_version_stored_is_combined_as_then(self, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        names = add_model(home, {"ball": wrong_in_a_corner(4.0)}, folds="0"), add_model(home, {"bar": right(2.0)}, folds="0")
        folder = results(home) / names[0] / "fold_0" / "validation"
        for path in folder.glob("*.b2nd"):
            codes = load_logits(folder, path.stem).array
            path.unlink()
            write_array(path, np.rint(codes[:]).astype(np.uint8))
            record_id(path)
        fit(home, "argmax", *names, folds=("0",))
        assert f"{names[0]}: fold 0 was validated by an earlier version" in caplog.text
        assert run_of(home, "argmax").record().ensemble.stored == EIGHT_BITS
        model = load_model(folder_of(home, "argmax"), CPU, InferenceOptions())
        assert (model.stored, model.learns) == (EIGHT_BITS, False)
        assert predict(home, tmp_path / "out", model=folder_of(home, "argmax").name).shape

    def test_logits_learn_to_trust_the_better_of_two_models(self, home: Path) -> None:
        rash = add_model(home, {"ball": wrong_in_a_corner(4.0)}, tag="rash", folds="012")
        members = add_model(home, {"ball": right(1.0)}, folds="012"), rash
        assert stored_mean(home, members[0], "ball", "0") > 0.95
        before = mean(fit(home, "argmax", *members, folds=("0",))["0"], "ball")
        after = mean(fit(home, "logits", *members, folds=("0",), iterations=100)["0"], "ball")
        assert before < 0.8
        assert after > 0.95
        weight = weights_of(run_of(home, "logits"))["conv.weight"].flatten(1)
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
        job = run_of(home, "multi").record()
        assert set(job.ensemble.members) == set(good)
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

    def test_multi_chooses_by_the_chaos_score(self, home: Path) -> None:
        """A speck far away costs little Dice, and much of the largest distance."""

        def with_speck(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            seen = mask.copy()
            seen[0, 0, 0] = True
            return np.where(seen, SURE, -SURE)

        def rough(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            """Ten voxels at the surface are missing, ten are too many."""
            seen = mask.copy()
            for shell in (mask & ~binary_erosion(mask), binary_dilation(mask) & ~mask):
                wrong = rng.choice(np.flatnonzero(shell), 10, replace=False)
                seen.reshape(-1)[wrong] = ~mask.reshape(-1)[wrong]
            return np.where(seen, SURE, -SURE)

        speck, uneven = add_model(home, {"ball": with_speck}, folds="01"), add_model(home, {"ball": rough}, tag="rough", folds="01")
        assert stored_mean(home, speck, "ball", "0") > stored_mean(home, uneven, "ball", "0")
        fit(home, "multi")
        assert run_of(home, "multi").record().ensemble.members == (uneven,)
        fit(home, "multi", choose_by="dice")
        (by_dice,) = results(home).glob("ensemble__Multi__by_dice")
        assert Run(by_dice / "fold_0").record().ensemble.members == (speck,)

    def test_members_by_validation_loss_and_more_than_one_an_organ(self, home: Path) -> None:
        losses = {add_model(home, {"ball": right()}, tag=tag, folds="01"): loss for tag, loss in (("a", 0.3), ("b", 0.1), ("c", 0.2))}
        with pytest.raises(ValueError, match="history.csv: expected the validation losses of"):
            fit(home, "argmax", choose_by="loss")
        for name, loss in losses.items():
            for fold in "01":
                rows = f"validation_interval,validation_loss\n1,{loss}\n2,0.9\n"
                (results(home) / name / f"fold_{fold}" / "history.csv").write_text(rows)
        fit(home, "argmax", choose_by="loss", per_organ=2, folds=("0",))
        (found,) = results(home).glob("ensemble__Argmax*")
        assert found.name == "ensemble__Argmax__2each__by_loss"
        assert [name[-1] for name in Run(found / "fold_0").record().ensemble.members] == ["b", "c"]
        refused = {"at least 1": {"per_organ": 0}, "says which of two": {"choose_by": "volume"}, "los": {"choose_by": "los"}}
        for message, settings in refused.items():
            with pytest.raises(ValueError, match=message):
                fit(home, "argmax", **settings)

    def test_fusion_fits_heads_on_held_out_cases_in_two_halves(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0")
        scores = fit(home, "fusion", *members, folds=("0",), iterations=6, freeze=True)["0"]
        run = run_of(home, "fusion")
        assert {score.case for score in scores} == set(splits(home)[0].val)
        one, other = (weights_of(Run(run.folder / f"half_{half}"))["head.weight"] for half in (0, 1))
        whole = weights_of(run)
        assert set(whole) == {"head.weight", "head.bias"}
        assert not torch.equal(one, other)
        assert torch.allclose(whole["head.weight"], (one + other) / 2)

    def test_fusion_trains_the_last_layers_on_and_averages_the_logits_of_its_halves(self, home: Path, tmp_path: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0")
        files = [results(home) / name / "fold_0" / FINAL_CHECKPOINT for name in members]
        before = [path.read_bytes() for path in files]
        fit(home, "fusion", *members, folds=("0",), iterations=6)
        assert [path.read_bytes() for path in files] == before, "the members themselves stay"
        run = run_of(home, "fusion")
        states, _ = load_checkpoint(run.checkpoint)
        assert set(states) == {"half_0", "half_1"}
        halves = [weights_of(Run(run.folder / half)) for half in states]
        assert all(torch.equal(value, states[half][name]) for half, one in zip(states, halves, strict=True) for name, value in one.items())
        weights = [name for name in halves[0] if name.startswith("last.") and name.endswith("weight")]
        assert len(weights) >= 2 and not any(torch.equal(halves[0][name], halves[1][name]) for name in weights)
        model = load_model(folder_of(home, "fusion"), CPU, InferenceOptions())
        networks = model.predictor.networks
        image = torch.rand(1, 1, 16, 16)
        assert len(networks) == 2 and not torch.equal(networks[0](image), networks[1](image))
        assert predict(home, tmp_path / "out", model=folder_of(home, "fusion").name).max() > 0

    def test_the_planned_patients_are_what_the_halves_keep_together(
        self, home: Path, planned: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (home / "preprocessed").unlink()
        (home / "preprocessed" / NAME).mkdir(parents=True)
        for path in (planned / "preprocessed" / NAME).iterdir():
            if path.name != "dataset.json":
                (home / "preprocessed" / NAME / path.name).symlink_to(path)
        workspace, held_out = Workspace(home), splits(home)[0].val
        raw = raw_dataset(workspace, NAME)
        write_planned_dataset(workspace, replace(raw, cases=tuple(replace(case, group=f"patient of {case.name}") for case in raw.cases)))
        halves = Mock(side_effect=fusion.halves)
        monkeypatch.setattr(ensemble_training, "halves", halves)
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0")
        fit(home, "fusion", *members, folds=("0",), iterations=1)
        assert [call.args[0] for call in halves.call_args_list] == [{case: f"patient of {case}" for case in held_out}]

    def test_fused_networks_may_see_different_windows(self, home: Path, tmp_path: Path) -> None:
        def windowed(plan: Configuration) -> Configuration:
            return replace(small(plan), normalization=("window:300:100",), data="2d_w300_l100")

        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0", seen=windowed)
        scores = fit(home, "fusion", *members, iterations=2)["0"]
        job = run_of(home, "fusion").record()
        assert len(job.plan.channels) == 2
        assert {score.organ for score in scores} == {"ball", "bar"}
        case, folders = splits(home)[0].val[0], (job.configuration.data, "2d", "2d_w300_l100")
        joined, plain, window = (Store(home / "preprocessed" / NAME / name).load(case).image[:] for name in folders)
        assert np.array_equal(joined, np.concatenate([plain, window]))
        assert predict(home, tmp_path / "out", model=folder_of(home, "fusion").name).max() > 0


class TestModelsLikeAnyOther:
    @pytest.mark.parametrize("kind", ["argmax", "multi"])
    def test_predicts_what_its_members_say(self, home: Path, tmp_path: Path, kind: str) -> None:
        members = add_model(home, {"ball": right()}, folds="01"), add_model(home, {"bar": right()}, folds="01")
        fit(home, kind, *members)
        found = predict(home, tmp_path / kind, model=folder_of(home, kind).name)
        claimed = np.any([predict(home, tmp_path / name, model=name) > 0 for name in members], axis=0)
        assert 0.02 < claimed.mean() < 0.98, "random networks say something"
        assert np.mean((found > 0) == claimed) > 0.97

    def test_post_processing_is_forced_also_on_a_named_model(self, home: Path, tmp_path: Path) -> None:
        name = add_model(home, {"ball": right(), "bar": right()}, folds="0")
        whole = predict(home, tmp_path / "whole", model=name)
        largest = predict(home, tmp_path / "largest", model=name, postprocess=("largest", "bar=none"))
        for value, expected in ((data.BALL, 1), (data.BAR, label(whole == data.BAR, np.ones((3, 3, 3)))[1])):
            assert label(largest == value, np.ones((3, 3, 3)))[1] == expected
        assert label(whole == data.BALL, np.ones((3, 3, 3)))[1] > 1

    def test_folds_vote_voxel_by_voxel(self, home: Path, tmp_path: Path) -> None:
        name = add_model(home, {"ball": right(), "bar": right()}, folds="012")
        alone = np.stack([predict(home, tmp_path / fold, model=name, folds=(fold,)) for fold in "012"])
        found = predict(home, tmp_path / "vote", model=name, vote=True)
        values = np.unique(alone)
        votes = np.stack([(alone == value).sum(0) for value in values])
        clear = votes.max(0) > 1
        assert np.array_equal(found[clear], values[votes.argmax(0)][clear])
        assert np.any(found != predict(home, tmp_path / "mean", model=name))
        image = home / "raw" / NAME / "imagesTs" / "case_10_0000.nii.gz"
        again = autoseg.predict(image, settings=PredictSettings(model=name, mirror=False, device="cpu", vote=True), home=home)
        assert np.array_equal(GetArrayFromImage(again), found)

    def test_models_vote_as_an_ensemble_and_as_a_choice(self, home: Path, tmp_path: Path) -> None:
        rash = [
            {"ball": wrong_in_a_corner(9.0), "bar": right()},
            {"ball": right(1.0), "bar": right()},
            {"ball": right(1.0), "bar": right()},
        ]
        names = [add_model(home, says, tag=tag, folds="01") for says, tag in zip(rash, "abc", strict=True)]
        assert mean(fit(home, "vote", *names)["0"], "ball") > 0.95
        assert mean(fit(home, "argmax", *names)["0"], "ball") < 0.9
        assert predict(home, tmp_path / "out", model=folder_of(home, "vote").name).shape
        add_model(home, {"ball": right()}, tag="d", folds="01")
        with pytest.raises(ValueError, match="two or more members of the same organs"):
            fit(home, "vote", *names, "2d__Trainer__ball__d")
        means, votes = (autoseg.find_best_configuration(3, home=home, vote=vote) for vote in (False, True))
        three = " + ".join(names)
        assert not means.vote and votes.vote and votes.table[three]["ball"] > 0.95 > means.table[three]["ball"]
        assert autoseg.find_best_configuration(3, home=home).table[three] == means.table[three], "majorities are stored apart"

    @pytest.mark.parametrize(("kind", "iterations"), [("logits", 1), ("meta", 1), ("fusion", 5)])  # fusion is undecided after one
    def test_predicts_alike_in_little_memory(self, home: Path, tmp_path: Path, kind: str, iterations: int) -> None:
        fit(
            home, kind, add_model(home, {"ball": right()}, folds="01"), add_model(home, {"bar": right()}, folds="01"), iterations=iterations
        )
        model = folder_of(home, kind).name
        usual, low_memory = (predict(home, tmp_path / str(low), model=model, low_memory=low) for low in (False, True))
        assert set(np.unique(usual)) <= {0, data.BALL, data.BAR}
        assert 0.02 < (usual > 0).mean() < 0.98
        assert np.mean(usual == low_memory) > 0.98

    def test_a_member_is_asked_once_though_it_is_wanted_for_itself_and_by_two_ensembles(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ball, bar = add_model(home, {"ball": right()}, folds="01"), add_model(home, {"bar": right()}, folds="01")
        for kind in ("argmax", "multi"):
            fit(home, kind, ball, bar)
        names = [folder_of(home, kind).name for kind in ("argmax", "multi")]
        predicted, preprocessed = [], TrainedModel.preprocessed
        monkeypatch.setattr(TrainedModel, "preprocessed", lambda self, *rest: predicted.append(self.name) or preprocessed(self, *rest))
        for organs in ({"ball": (names[0],), "bar": (names[1],)}, {"ball": (names[0],), "bar": (bar,)}):
            predicted.clear()
            write_json(results(home) / "choice.json", Choice(organs, ("0", "1"), {}, 4))
            predict(home, tmp_path / str(len(list(tmp_path.iterdir()))))
            assert sorted(predicted) == [ball, bar]

    def test_stands_among_the_candidates_of_the_choice(self, home: Path) -> None:
        members = add_model(home, {"ball": right(), "bar": speckled}, folds="01"), add_model(home, {"bar": right()}, folds="01")
        scores = fit(home, "multi")
        choice = autoseg.find_best_configuration(3, home=home, max_members=1)
        name = folder_of(home, "multi").name
        assert set(choice.table) == {*members, name}
        for organ in ("ball", "bar"):
            assert choice.table[name][organ] == pytest.approx(mean(scores["0"] + scores["1"], organ))

    def test_costs_what_its_members_cost_too(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("autoseg.trainers.validation.time", SimpleNamespace(perf_counter=lambda: 0.0))
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0")
        for name, seconds in zip(members, (10.0, 5.0), strict=True):
            write_json(results(home) / name / "fold_0" / "validation" / "timings.json", dict.fromkeys(splits(home)[0].val, seconds))
        fit(home, "argmax", *members)
        name = folder_of(home, "argmax").name
        assert seconds_of(results(home), [name], ["0"]) == {name: 15.0}

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
        assert set(run_of(home, "argmax").record().ensemble.members) == set(best)
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
        assert run_of(home, "argmax", "1").record().ensemble.members == (first,)
        fit(home, "argmax", restart=True)
        assert run_of(home, "argmax", "1").record().ensemble.members == (f"{first}__better",)

    def test_a_restart_that_is_refused_leaves_what_is_there(self, home: Path) -> None:
        member = add_model(home, {"ball": right()}, folds="01")
        scores = fit(home, "argmax", folds=("0",))
        before = data.snapshot(folder_of(home, "argmax"))
        for path in (results(home) / member / "fold_0" / "validation").glob("*.b2nd"):
            path.unlink()
        with pytest.raises(ValueError, match="no case of which every member's probabilities"):
            fit(home, "argmax", folds=("0",), restart=True)
        assert data.snapshot(folder_of(home, "argmax")) == before
        again = fit(home, "argmax", folds=("0",))
        assert [score.dice for score in again["0"]] == [score.dice for score in scores["0"]], "what is finished needs them no more"

    def test_networks_that_were_trained_again_are_not_taken_for_those_of_before(self, home: Path) -> None:
        member = add_model(home, {"ball": right()}, folds="0")
        fit(home, "fusion", folds=("0",), iterations=1)
        load_model(folder_of(home, "fusion"), CPU, InferenceOptions())
        path = results(home) / member / "fold_0" / FINAL_CHECKPOINT
        states, meta = load_checkpoint(path)
        save_checkpoint(path, {"network": {name: weight + 1 for name, weight in states["network"].items()}}, meta)
        with pytest.raises(
            ValueError, match=f"ensemble__Fusion/fold_0: was made from former networks of {member}/0, which were trained again since"
        ):
            load_model(folder_of(home, "fusion"), CPU, InferenceOptions())

    def test_an_interrupted_training_goes_on_to_the_same_weights(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        member = add_model(home, {"ball": speckled}, folds="01")
        fit(home, "logits", member, folds=("0",), iterations=50)
        whole = weights_of(run_of(home, "logits"))
        monkeypatch.setattr("autoseg.trainers.trainer.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        finish_interval = Trainer.finish_interval
        with pytest.MonkeyPatch.context() as patch:
            interrupted = Mock(side_effect=KeyboardInterrupt)
            patch.setattr(Trainer, "finish_interval", lambda self, bar: (finish_interval(self, bar), interrupted()))
            with pytest.raises(KeyboardInterrupt):
                fit(home, "logits", member, folds=("0",), iterations=50, restart=True)
        fit(home, "logits", member, folds=("0",))
        again = weights_of(run_of(home, "logits"))
        assert all(torch.equal(value, again[name]) for name, value in whole.items())


class TestMembersThatChanged:
    def test_networks_trained_anew_are_noticed_when_predicting_training_on_and_choosing(
        self, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = add_model(home, {"ball": right(), "bar": right()}, folds="01")
        fit(home, "argmax", model)
        checkpoint = results(home) / model / "fold_0" / FINAL_CHECKPOINT
        state, _ = load_checkpoint(checkpoint)
        save_checkpoint(checkpoint, state, {"again": 1})
        message = rf"ensemble__Argmax.*fold_0: was made from former networks of {model}/0.*--restart"
        with pytest.raises(ValueError, match=message):
            predict(home, tmp_path / "out", model=folder_of(home, "argmax").name)
        with pytest.raises(ValueError, match=message):
            fit(home, "argmax", model)
        assert {*autoseg.find_best_configuration(3, home=home).organs.values()} == {(model,)}
        assert f"is left out, as its members were trained again since: {model}/0" in caplog.text
        fit(home, "argmax", model, restart=True)
        predict(home, tmp_path / "out", model=folder_of(home, "argmax").name)

    def test_members_of_another_order_of_organs_do_not_mix_them_where_no_networks_were_noted(self, home: Path, tmp_path: Path) -> None:
        model = add_model(home, {"ball": right(), "bar": right()}, folds="0")
        fit(home, "argmax", model)
        stamp_path(run_of(home, "argmax").record_file).unlink()
        run = Run(results(home) / model / "fold_0")
        plan, labels = (record := run.record()).plan, record.plan.labels
        exchanged = replace(labels, names=labels.names[::-1], members=labels.members[::-1])
        write_json(run.record_file, replace(record, plan=replace(plan, labels=exchanged)))
        with pytest.raises(ValueError, match=f"was made from former networks of {model}, which were trained again since"):
            predict(home, tmp_path / "out", model=folder_of(home, "argmax").name)

    def test_a_plan_of_other_labels_is_refused_before_its_cases_are_made_again(self, home: Path) -> None:
        model = add_model(home, {"ball": right(), "bar": right()}, folds="0")
        run = Run(results(home) / model / "fold_0")
        record = run.record()
        labels = replace(record.plan.labels, members=record.plan.labels.members[::-1])
        write_json(run.record_file, replace(record, plan=replace(record.plan, labels=labels)))
        with pytest.raises(ValueError, match=f"{model}: was trained with other labels than {NAME} is planned with now.*--restart"):
            fit(home, "argmax", model)
        assert not list(results(home).glob("ensemble__*/fold_*/run.json"))


def test_the_command_tells_the_scores(home: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    add_model(home, {"ball": right()}, folds="0")
    options = ["--folds", "0", "--device", "cpu", "--home", str(home)]
    with caplog.at_level(logging.INFO):
        assert cli.train_ensemble(["3", "--kind", "argmax", *options]) == 0
    assert "whole volumes" in caplog.text and "ball" in caplog.text
    assert cli.train_ensemble(["3", "--kind", "meta", *options]) == 2
    assert "autoseg_train" in capsys.readouterr().err
