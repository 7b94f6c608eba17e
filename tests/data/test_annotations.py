"""What follows from the ``annotated`` entry of a dataset: reading it, and every stage that counts organs."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from factories import change_info, fingerprint_of, make_case, make_configuration, make_job, make_plan, relabel, write_dataset

from autoseg.data.annotations import annotated_indices, parse_annotated, unannotated_voxels
from autoseg.data.checks import UNANNOTATED, check_dataset
from autoseg.data.datasets import load_dataset
from autoseg.data.images import read_label
from autoseg.data.label_subsets import subset_labels
from autoseg.data.repair import fix_dataset
from autoseg.evaluation.folders import evaluate_folders, summary, table
from autoseg.planners.splits import make_splits
from autoseg.preprocessing.preprocess import class_locations, preprocess_dataset
from autoseg.preprocessing.storage import Store
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Mirroring, Plan, Score, Split
from autoseg.selection.candidates import candidates_for
from autoseg.selection.choice import choose
from autoseg.trainers.batches import TRAINING, VALIDATION, BatchMaker
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.trainer import Trainer

ORGANS = factories.labels(liver=2, kidney=5, spleen=7)
REGIONS = factories.REGIONS
FILE = Path("dataset.json")
CASES = ("a_1", "a_2", "b_1")
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Cases a to d with ball (2) and block (5); of a, nobody annotated the block."""
    folder = write_dataset(tmp_path / "raw" / "Dataset001_Tiny")
    relabel(folder / "labelsTr" / "a.nii.gz", {2: 2})
    return change_info(folder, annotated={"a": ["ball"]})


class TestEntry:
    @pytest.mark.parametrize(
        ("entry", "annotated"),
        [
            ({"a_1": ["spleen", "liver"], "b_1": ["kidney"]}, {"a_1": ("liver", "spleen"), "b_1": ("kidney",)}),
            (
                [{"cases": "^a_", "organs": ["liver"]}, {"cases": ["b_1"], "organs": ["kidney"]}],
                {"a_1": ("liver",), "a_2": ("liver",), "b_1": ("kidney",)},
            ),
            (None, {}),
            ({"a_1": ["spleen", "kidney", "liver"]}, {}),
            ({"a_1": ["spleen+kidney", "liver"]}, {"a_1": ("liver", "kidney + spleen")}),
        ],
    )
    def test_case_by_case_or_by_groups_in_the_order_of_the_labels(self, entry, annotated):
        assert parse_annotated(entry, CASES, ORGANS, FILE) == annotated

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"a_1": ["livre"]}, "annotated: organ: expected one of kidney, liver, spleen, got 'livre'.*Did you mean 'liver'"),
            ({"a_1": ["liver + livre"]}, "annotated: organ: expected one of .*, got 'livre'"),
            ({"a_1": ["liver + spleen", "liver"]}, "each organ once, alone or in a union .*, found 'liver' twice"),
            ({"a_1": ["liver + liver"]}, "each organ once"),
            ({"a_3": ["liver"]}, "annotated: case: expected one of a_1, a_2, b_1, got 'a_3'"),
            ({"a_1": []}, "a list of at least one organ, found \\[\\]"),
            ({"a_1": "liver"}, "a list of at least one organ, found 'liver'"),
            (["liver"], "annotated: expected an object such as"),
            ([{"cases": "^a_"}], "annotated: expected an object such as"),
            ([{"cases": "^c", "organs": ["liver"]}], "some case fits, found '\\^c', which fits none"),
            ([{"cases": "(", "organs": ["liver"]}], "no regular expression"),
            ([{"cases": 3, "organs": ["liver"]}], "list of names or a regular expression, found 3"),
            ([{"cases": "a", "organs": ["liver"]}, {"cases": ["a_2"], "organs": ["spleen"]}], "one list of organs for case a_2"),
        ],
    )
    def test_what_is_wrong_is_said(self, entry, message):
        with pytest.raises(ValueError, match=message):
            parse_annotated(entry, CASES, ORGANS, FILE)

    def test_cases_know_it(self, folder):
        assert [case.annotated for case in load_dataset(folder).cases] == [("ball",), None, None, None]
        assert all(case.annotated is None for case in load_dataset(change_info(folder, annotated=None)).cases)


def test_indices_are_those_of_the_models_own_organs():
    assert annotated_indices(None, ORGANS) is None
    assert annotated_indices(("liver", "spleen"), ORGANS) == (0, 2)
    assert annotated_indices(("liver", "kidney", "spleen"), ORGANS) is None
    only = factories.labels(spleen=7)
    assert annotated_indices(("liver", "spleen"), only) is None
    assert annotated_indices(("liver",), only) == ()


def test_a_union_of_regions_is_a_region():
    with pytest.raises(ValueError, match=r"expected regions, found the union 'whole \+ core'; make it a region in labels"):
        parse_annotated({"a_1": ["whole + core"]}, CASES, REGIONS, FILE)


def test_the_voxels_of_a_union_are_allowed_and_patches_are_centred_on_them():
    assert unannotated_voxels(np.array([0, 2, 5, 7]), ORGANS, ("liver + kidney",)) == {"spleen": 1}
    shown = class_locations(np.array([[[0, 1, 2, 3]]]), ORGANS, np.random.default_rng(0), annotated=("liver + kidney", "spleen"))
    assert {key: sorted(voxels[:, 2].tolist()) for key, voxels in shown.items()} == {"0": [1, 2], "1": [], "2": [3]}


def test_voxels_of_unannotated_organs():
    values = np.array([[0, 2, 2], [5, 7, 7]])
    assert unannotated_voxels(values, ORGANS, None) == {}
    assert unannotated_voxels(values, ORGANS, ("liver",)) == {"kidney": 1, "spleen": 2}
    assert unannotated_voxels(values, ORGANS, ("kidney", "spleen")) == {"liver": 2}
    of_regions = np.array([1, 2, 2])
    assert unannotated_voxels(of_regions, REGIONS, ("whole",)) == {}, "a value of an annotated region may be there"
    assert unannotated_voxels(of_regions, REGIONS, ("core",)) == {"whole": 1}


class TestChecks:
    def test_a_contradiction_is_listed_with_case_file_organ_and_voxels(self, folder):
        assert check_dataset(folder, workers=0) == [], "nothing is wrong with partial labels"
        (problem,) = check_dataset(change_info(folder, annotated={"a": ["ball"], "b": ["ball"]}), workers=0)
        count = int((read_label(folder / "labelsTr" / "b.nii.gz").array == 5).sum())
        assert (problem.case, problem.kind, problem.found, problem.fixable) == ("b", UNANNOTATED, f"block ({count} voxels)", False)
        assert problem.file.endswith("b.nii.gz")
        assert problem.expected.endswith("ball")

    def test_a_repaired_copy_keeps_the_entry_for_the_cases_that_it_keeps(self, folder, tmp_path):
        change_info(folder, annotated=[{"cases": "^a$", "organs": ["ball"]}, {"cases": ["b"], "organs": ["ball"]}])
        fix_dataset(folder, check_dataset(folder, workers=0), tmp_path / "fixed")
        assert {case.name: case.annotated for case in load_dataset(tmp_path / "fixed").cases} == {"a": ("ball",), "c": None, "d": None}


@pytest.fixture
def plan() -> Plan:
    return make_plan(make_configuration(spacing=(2.0, 1.0, 1.0)))


def preprocess(folder: Path, plan: Plan, out: Path) -> dict[str, str]:
    return preprocess_dataset(load_dataset(folder), plan, plan.configurations["3d_fullres"], out / "data", workers=0)


class TestPlanning:
    def test_an_unannotated_organ_has_no_voxels_and_intensities_stay(self, folder):
        measured, failures = fingerprint_of(load_dataset(folder), workers=0)
        assert failures == {}
        assert [case.voxels[1] > 0 for case in measured.cases] == [False, True, True, True]
        change_info(folder, annotated=None)
        assert fingerprint_of(load_dataset(folder), workers=0)[0] == measured

    def test_of_regions_too(self, folder):
        regions = {"background": 0, "both": [2, 5], "block": [5]}
        change_info(folder, labels=regions, regions_class_order=[2, 5], annotated={"b": ["both"]})
        measured, failures = fingerprint_of(load_dataset(folder), workers=0)
        assert failures == {}
        assert measured.cases[1].voxels[1] == 0 < measured.cases[1].voxels[0]

    def test_a_contradicting_case_is_left_out_by_name(self, folder, plan, tmp_path):
        measured, failures = fingerprint_of(load_dataset(change_info(folder, annotated={"b": ["ball"]})), workers=0)
        assert [case.name for case in measured.cases] == ["a", "c", "d"]
        for reasons in (failures, preprocess(folder, plan, tmp_path)):
            assert list(reasons) == ["b"]
            assert "b.nii.gz" in reasons["b"] and "found also block (" in reasons["b"]

    def test_folds_share_out_the_cases_that_have_an_organ(self, tmp_path):
        names = [f"case_{number}" for number in range(8)]
        folder = write_dataset(tmp_path / "Dataset001_Tiny", names)
        for name in names[:4]:
            relabel(folder / "labelsTr" / f"{name}.nii.gz", {2: 2})
        change_info(folder, annotated=[{"cases": names[:4], "organs": ["ball"]}])
        measured, _ = fingerprint_of(load_dataset(folder), workers=0)
        splits = make_splits(measured, {}, n_folds=4)
        assert [sum(name in names[4:] for name in split.val) for split in splits] == [1, 1, 1, 1]


class TestPreprocessing:
    def test_the_stored_case_knows_its_organs(self, folder, plan, tmp_path):
        assert preprocess(folder, plan, tmp_path) == {}
        stored = {name: Store(tmp_path / "data").load(name) for name in "ab"}
        assert (stored["a"].annotated, stored["b"].annotated) == (("ball",), None)
        assert [len(stored["a"].locations[key]) > 0 for key in "01"] == [True, False]

    def test_another_entry_redoes_only_what_it_concerns(self, folder, plan, tmp_path):
        times = []
        for annotated in ({"a": ["ball"]}, None):
            preprocess(change_info(folder, annotated=annotated), plan, tmp_path)
            times.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("*.trace.json")})
        assert [name for name in times[0] if times[0][name] != times[1][name]] == ["a.trace.json"]
        assert Store(tmp_path / "data").load("a").annotated is None

    def test_a_preprocessed_case_of_0_1_0_is_kept_for_the_same_organs_only(self, folder, plan, tmp_path):
        preprocess(folder, plan, tmp_path)
        case, path = load_dataset(folder).cases[0], tmp_path / "data" / "a.trace.json"
        sizes = [file.stat().st_size for file in (*case.images, case.label)]
        record = {"trace": read_json(path, dict)["trace"], "annotated": ["ball"]}
        for organs, has_logits in (("ball", True), ("block", False)):
            write_json(path, record | {"stamp": f"2 files, {sum(sizes)} bytes, 1700000000000000000, annotated: {organs}"})
            preprocess(folder, plan, tmp_path)
            assert (Store(tmp_path / "data").load("a").made_from is None) == has_logits

    def test_voxels_to_centre_on_are_of_annotated_organs_also_where_regions_overlap(self):
        _, labels = make_case(0)
        found = class_locations(labels, REGIONS, np.random.default_rng(0), annotated=("whole",))
        assert len(found["0"]) and found["1"].shape == (0, 3)


class TestBatches:
    """Cases a (ball only) and b (all)."""

    @pytest.fixture
    def make(self, tmp_path, folder):
        def make(*, names=("a", "b"), stream=TRAINING, **changes):
            plan = make_plan(make_configuration(spacing=(2.0, 1.0, 1.0), **changes))
            preprocess(folder, plan, tmp_path)
            return BatchMaker(make_job(plan), RunFolders(tmp_path / "run", tmp_path / "data"), names, stream=stream, device=CPU)

        return make

    @pytest.mark.parametrize("stream", [TRAINING, VALIDATION])
    def test_every_sample_says_what_its_case_says(self, make, stream):
        maker, seen = make(stream=stream), set()
        for number in range(6):
            batch = maker(number)
            assert batch.annotated == tuple({"a": (0,), "b": None}[case] for case in batch.cases)
            seen |= set(batch.annotated)
        assert seen == {(0,), None}

    def test_a_flip_that_exchanges_left_and_right_exchanges_what_is_annotated(self, make):
        flips = Mirroring(axes=(0, 1, 2), lateral_axis=2, pairs=((0, 1),))
        maker, seen = make(mirroring=flips, names=("a",)), set()
        for number in range(8):
            batch = maker(number)
            seen |= set(batch.annotated)
            for organs, labels in zip(batch.annotated, batch.segmentation, strict=True):
                assert set(labels.unique().tolist()) <= {0, organs[0] + 1}
        assert seen == {(0,), (1,)}

    def test_a_case_without_any_annotated_organ_of_the_model_is_not_drawn(self, make, monkeypatch):
        monkeypatch.setattr("autoseg.trainers.batches.annotated_indices", lambda names, _: None if names is None else ())
        maker = make()
        assert {case for number in range(5) for case in maker(number).cases} == {"b"}
        with pytest.raises(ValueError, match="ball, block: annotated in none of the fold's 1 cases"):
            make(names=("a",))


class TestScoringWhileTraining:
    """A model of the block alone; of case a, nobody annotated it."""

    @pytest.fixture
    def block(self, folder, plan, tmp_path) -> Plan:
        plan = dataclasses.replace(plan, labels=subset_labels(plan.labels, ("block",)), data_labels=plan.labels)
        preprocess(folder, plan, tmp_path)
        return plan

    @pytest.mark.parametrize(("held_out", "scored"), [(("a",), {"b"}), (("a", "c"), {"c"})])
    def test_cases_are_scored_that_can_judge(self, block, tmp_path, caplog, monkeypatch, held_out, scored):
        job = dataclasses.replace(make_job(block), split=Split(("b",), held_out))
        trainer, seen = Trainer(job, RunFolders(tmp_path / "run", tmp_path / "data"), device=CPU, progress=False), set()
        read = BatchMaker.__call__
        monkeypatch.setattr(BatchMaker, "__call__", lambda maker, number: seen.update((found := read(maker, number)).cases) or found)
        for _ in range(2):
            assert math.isfinite(trainer._score_patches()["validation_loss"])
            assert not math.isnan(trainer._score_volumes()["dice_block"])
        assert seen == scored
        assert caplog.text.count("scores while training come from training cases") == (held_out == ("a",))

    def test_training_cases_that_teach_nothing_are_still_an_error(self, block, tmp_path):
        with pytest.raises(ValueError, match="block: annotated in none of the fold's 1 cases"):
            BatchMaker(make_job(block), RunFolders(tmp_path / "run", tmp_path / "data"), ("a",), stream=TRAINING, device=CPU)


class TestScores:
    def test_tables_are_means_over_the_cases_that_have_an_organ(self, tmp_path):
        dataset = load_dataset(write_dataset(tmp_path / "Dataset001_Tiny"))
        truth = dataset.folder / "labelsTr"
        copied = shutil.copytree(truth, tmp_path / "copied")
        scores = evaluate_folders(truth, copied, dataset.labels, workers=1, annotated={"a": ("ball",), "b": None})
        found = summary(scores)
        assert (found["ball"].cases, found["block"].cases, found["block"].absent, found["block"].dice) == (4, 3, 0, 1)
        assert "mean of organs" in table(scores)


class TestChoice:
    candidates = candidates_for(["2d", "3d"], 1)

    def scores(self, **dice: list[float]) -> list[Score]:
        """The last entry of each organ is its Dice in case b, one before it that in case a."""
        return [Score(case, organ, one, one, 1, 1) for organ, values in dice.items() for case, one in zip("ba", values[::-1])]

    def test_an_organ_is_judged_on_the_cases_that_have_it(self):
        scores = {"2d": self.scores(liver=[0.9, 0.7], spleen=[0.6]), "3d": self.scores(liver=[0.5, 0.8], spleen=[0.8])}
        choice = choose(scores, self.candidates, ["liver", "spleen"], folds=["0"])
        assert choice.organs == {"liver": ("2d",), "spleen": ("3d",)}
        assert choice.table["2d"] == {"liver": pytest.approx(0.8), "spleen": 0.6}
        assert choice.cases == 2
        assert "over 1 case;" in choice.reasons["spleen"]

    def test_an_organ_without_any_case_goes_to_the_first_model_with_a_warning(self, caplog):
        scores = {"2d": self.scores(liver=[0.7]), "3d": self.scores(liver=[0.9])}
        choice = choose(scores, self.candidates, ["liver", "spleen"], folds=["0"])
        assert choice.organs == {"liver": ("3d",), "spleen": ("2d",)}
        assert choice.reasons["spleen"] == "2d: spleen was annotated in no validation case to judge it by"
        assert choice.reasons["spleen"] in caplog.text
        assert choice.cases == 1

    def test_cases_without_annotation_of_the_organ_are_not_counted_as_missing(self, caplog):
        """The model of the spleen has no score in case a, as nobody annotated it there: both were validated on all that count."""
        candidates = candidates_for(["all", "one"], organs={"all": ("liver", "spleen"), "one": ("spleen",)})
        scores = {"all": self.scores(liver=[0.9, 0.7], spleen=[0.6]), "one": self.scores(spleen=[0.8])}
        assert choose(scores, candidates, ["liver", "spleen"], folds=["0"]).organs == {"liver": ("all",), "spleen": ("one",)}
        assert caplog.text == ""

    def test_cases_that_one_model_has_no_score_of_are_left_out_with_a_warning(self, caplog):
        scores = {"2d": self.scores(liver=[0.1, 0.7]), "3d": [*self.scores(liver=[0.8]), Score("a", "spleen", 0.8, 0.8, 1, 1)]}
        assert choose(scores, self.candidates, ["liver"], folds=["0"]).organs == {"liver": ("3d",)}
        assert "liver is judged on the 1 of 2 cases" in caplog.text
