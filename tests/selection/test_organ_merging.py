"""Organs of different models in one map: voxels claimed twice are counted, and the scores after it are those of the merged map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import make_case, make_plan
from test_choosing import DATASET, plan_of

from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import read_label
from autoseg.data.label_subsets import translate_labels
from autoseg.evaluation.case_scores import score_case
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import save_logits
from autoseg.pipeline import describe_choice
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Choice, Score, Trace
from autoseg.selection.candidate_scores import SelectionTask
from autoseg.selection.organ_merging import merged_choice

BALL, BLOCK = "2d__T__ball", "2d__T__block"
CHOICE = Choice({"ball": (BALL,), "block": (BLOCK,)}, ("0",), {}, 2)


@pytest.fixture
def task(tmp_path, tiny_dataset) -> SelectionTask:
    """A sure model of the block, and one of the ball that also claims the block's first slice, less surely."""
    tiny_dataset(tmp_path / "raw" / DATASET)
    results = tmp_path / "results" / DATASET
    for organ, model, sure in (("ball", BALL, 2.0), ("block", BLOCK, 4.0)):
        run, plan = results / model / "fold_0", plan_of(organ)
        for name in "ab":
            _, labels = make_case("abcd".index(name))
            claimed = translate_labels(labels, plan.stored_labels, plan.labels) == 1
            if organ == "ball":
                claimed |= (labels == 2) & (np.arange(len(labels)) == len(labels) - 5)[:, None, None]
            geometry = read_label(tmp_path / "raw" / DATASET / "labelsTr" / f"{name}.nii.gz").geometry
            trace = Trace(name, geometry, (0, 1, 2), labels.shape, tuple((0, n) for n in labels.shape), labels.shape, geometry.spacing)
            save_logits(run / "validation", name, Logits(np.stack([~claimed, claimed]).astype(np.float32) * sure, trace), plan.labels)
        write_json(run / "run.json", {"plan": plan})
    cases = [case for case in planned_dataset(Workspace(tmp_path), 1).cases if case.name in "ab"]
    return SelectionTask(results, make_plan(), {"0": cases})


def own_scores() -> dict[str, list[Score]]:
    """Of each model's own map."""
    found = {BALL: [], BLOCK: []}
    for name in "ab":
        _, labels = make_case("abcd".index(name))
        wrong = np.where((labels == 2) & (np.arange(len(labels)) == len(labels) - 5)[:, None, None], 1, labels)
        ball, _ = score_case(name, wrong, labels, make_plan().labels, metrics=())
        found[BALL].append(ball)
        found[BLOCK].append(score_case(name, labels, labels, make_plan().labels, metrics=())[1])
    return found


def test_voxels_that_two_organs_claim_are_counted_and_go_to_the_surer_one(task):
    claimed = [int((make_case("abcd".index(name))[1][-5] == 2).sum()) for name in "ab"]
    merged = merged_choice(task, CHOICE, own_scores()).merged
    assert (merged.conflicts, merged.most, merged.cases) == (np.mean(claimed), max(claimed), 2)
    assert merged.alone["ball"] == pytest.approx(np.mean([score.dice for score in own_scores()[BALL]]))
    assert merged.alone["ball"] < 0.95
    assert merged.together == {"ball": 1.0, "block": 1.0}


def test_it_is_told_which_scores_change(task):
    told = describe_choice(merged_choice(task, CHOICE, own_scores()))
    assert "16 voxels a case are claimed by two organs (at most 16)" in told
    assert "calibrated averages, change ball 0." in told and " -> 1.0000" in told and "block 1.0000" not in told


def test_one_candidate_for_all_has_nothing_to_merge(task):
    choice = replace(CHOICE, organs={"ball": (BALL,)})
    assert merged_choice(task, choice, own_scores()) is choice


def test_cases_whose_probabilities_are_gone_are_left_out(task):
    (task.results / BALL / "fold_0" / "validation" / "a.b2nd").unlink()
    assert merged_choice(task, CHOICE, own_scores()).merged.cases == 1
    (task.results / BALL / "fold_0" / "validation" / "b.b2nd").unlink()
    assert merged_choice(task, CHOICE, own_scores()).merged is None
