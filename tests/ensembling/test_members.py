"""What ensembles are made of and learn from: members with the same folds, and cases that their networks have not seen."""

from __future__ import annotations

import json
import logging
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ensemble_models import NAME, add_model, fit, linked_home, planned_once, results, right, run_of, small, speckled, splits

from autoseg.inference.quantised_logits import load_logits
from autoseg.pipeline import EnsembleSettings, train_ensemble
from autoseg.preprocessing.storage import Store

planned = pytest.fixture(scope="module")(planned_once)
home = pytest.fixture(linked_home)


class TestWhatIsLearntFrom:
    def test_no_case_of_the_fold_and_each_by_networks_that_have_not_seen_it(self, home: Path) -> None:
        member = add_model(home, {"ball": right()})
        fit(home, "logits", member, folds=("2",), iterations=2)
        job = run_of(home, "logits", "2").record()
        own = splits(home)[2].val
        assert job.split.val == tuple(sorted(own))
        assert set(job.split.train) == {case for split in splits(home) for case in split.val} - set(own)
        store = Store(home / "preprocessed" / NAME / job.configuration.data)
        for fold, split in enumerate(splits(home)):
            for case in split.val:
                mine = load_logits(results(home) / member / f"fold_{fold}" / "validation", case)
                assert np.array_equal(np.asarray(store.load(case).image[:])[0] > 6.2345, np.asarray(mine.array[:])[1] > 127)

    def test_models_trained_on_what_others_hold_out_are_refused(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, folds="0")
        path = results(home) / members[1] / "fold_0" / "run.json"
        record = json.loads(path.read_text())
        del record["digest"]  # edited on purpose
        record["split"] = {"train": record["split"]["val"], "val": record["split"]["train"]}
        path.write_text(json.dumps(record))
        with pytest.raises(ValueError, match="would learn from what it should not know"):
            fit(home, "argmax", *members)

    def test_folds_that_every_member_has_are_used(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="012"), add_model(home, {"bar": right()}, folds="0124")
        scores = fit(home, "argmax", *members)
        assert list(scores) == ["0", "1", "2"]
        assert min(score.dice for some in scores.values() for score in some) > 0.95, "argmax of models that are right is right"

    def test_a_model_of_fewer_folds_is_no_member_by_itself(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        member = add_model(home, {"ball": speckled}, folds="01")
        few = add_model(home, {"ball": right()}, tag="few", folds="0")
        with caplog.at_level(logging.WARNING, "autoseg"):
            fit(home, "logits", folds=("0",), iterations=1)
        assert (
            f"{few} is no member: it was trained on fold 0, the members share fold 0, 1. To have it, run:\n  autoseg_train" in caplog.text
        )
        assert run_of(home, "logits").record().ensemble.members == (member,)

    def test_a_model_on_other_folds_does_not_drive_the_others_out(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The one of most folds shares none with the other two: it is the one that is left out, and named with what is missing."""
        members = add_model(home, {"ball": right()}, folds="01"), add_model(home, {"bar": right()}, folds="01")
        other = add_model(home, {"ball": right()}, tag="other", folds="234")
        with caplog.at_level(logging.WARNING, "autoseg"):
            assert list(fit(home, "argmax")) == ["0", "1"]
        assert set(run_of(home, "argmax").record().ensemble.members) == set(members)
        (said,) = [record.getMessage() for record in caplog.records if "is no member" in record.getMessage()]
        assert said.startswith(f"{other} is no member: it was trained on fold 2, 3, 4, the members share fold 0, 1. To have it, run:")
        commands = [shlex.split(line) for line in said.splitlines()[1:]]
        assert [command[3] for command in commands] == ["0", "1"] and all("other" in command for command in commands)

    def test_missing_folds_are_listed_with_the_command_that_trains_them(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}, folds="0"), add_model(home, {"bar": right()}, tag="wide", folds="1")
        with pytest.raises(ValueError, match="2 or more folds that every member") as caught:
            fit(home, "logits", *members)
        one, other = (shlex.split(line) for line in str(caught.value).splitlines()[1:])
        assert one[:4] == ["autoseg_train", NAME, "2d", "1"] and " --organs ball " in f"{shlex.join(one)} " and "--tag" not in one
        assert other[:4] == ["autoseg_train", NAME, "2d", "0"]
        assert {"--organs bar", "--tag wide"} <= {" ".join(pair) for pair in pairwise(other)}
        with pytest.raises(ValueError, match="fold 3 needs members"):
            fit(home, "argmax", members[0], folds=("3",))

    def test_of_a_single_fold_that_is_not_the_first_the_next_one_is_listed(self, home: Path) -> None:
        member = add_model(home, {"ball": right()}, folds="1")
        with pytest.raises(ValueError, match="trained and validated on, found fold 1. Run:") as caught:
            fit(home, "logits", member)
        (line,) = str(caught.value).splitlines()[1:]
        assert shlex.split(line)[:4] == ["autoseg_train", NAME, "2d", "0"]

    def test_probabilities_that_were_removed_are_missed(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        member = add_model(home, {"ball": right()}, folds="01")
        one, other = sorted(splits(home)[0].val)
        (results(home) / member / "fold_0" / "validation" / f"{one}.b2nd").unlink()
        with caplog.at_level(logging.WARNING):
            assert {score.case for score in fit(home, "argmax", member, folds=("0",))["0"]} == {other}
        assert f"not every member's probabilities are there: {one}" in caplog.text
        for case in splits(home)[1].val:
            (results(home) / member / "fold_1" / "validation" / f"{case}.b2nd").unlink()
        with pytest.raises(ValueError, match=r"no case of which every member's probabilities \(.b2nd\) are there"):
            fit(home, "argmax", member, folds=("1",))


class TestWhatIsRefused:
    def test_unknown_names_are_answered_with_those_there_and_no_models_with_what_to_train(self, home: Path) -> None:
        with pytest.raises(ValueError, match="Run: autoseg_train"):
            fit(home, "multi")
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

    def test_features_on_different_grids_cannot_be_fused(self, home: Path) -> None:
        one = add_model(home, {"ball": right()}, folds="0")
        other = add_model(home, {"bar": right()}, folds="0", seen=lambda plan: replace(small(plan), spacing=(3.0, 3.0)))
        with pytest.raises(ValueError, match="layer fusion: expected members on the same grid"):
            fit(home, "fusion", one, other)

    def test_a_fold_of_one_patient_cannot_be_fused_and_is_found_before_the_others_are_trained(self, home: Path) -> None:
        members = add_model(home, {"ball": right()}), add_model(home, {"bar": right()})
        for name in members:
            for case in splits(home)[4].val[1:]:
                (results(home) / name / "fold_4" / "validation" / f"{case}.b2nd").unlink()
        with pytest.raises(ValueError, match=f"two patients or more in each fold, got fold 4: {splits(home)[4].val[0]}"):
            fit(home, "fusion", *members, iterations=1)
        assert not list(results(home).glob("ensemble*"))

    def test_networks_that_cannot_be_cut_leave_nothing_behind(self, home: Path) -> None:
        member = add_model(home, {"ball": right()}, folds="0", seen=lambda plan: replace(plan, network="dense_vnet", network_options={}))
        with pytest.raises(ValueError, match=f"{member}: DenseVNet: its logits are no 1x1 convolution"):
            fit(home, "fusion", member)
        assert not list(results(home).glob("ensemble*"))
