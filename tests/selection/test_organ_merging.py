"""Organs of different models in one map: voxels claimed twice are counted, and the scores after it are those of the merged map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import DATASET, cross_validation_of, make_plan, one_hot, plan_of, planned_home, record_run, save_prediction, truth

from autoseg.data.descriptions import planned_dataset
from autoseg.evaluation.case_scores import score_case
from autoseg.pipeline import describe_choice
from autoseg.runtime.runs import ModelFolder, Run
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Candidate, Choice, OrganMerging, Score
from autoseg.selection import held_out
from autoseg.selection.choice import SelectionContext, choose, taken_for_all
from autoseg.selection.organ_merging import better_alone
from autoseg.selection.postprocessing_trials import choose_postprocessing

BALL, BLOCK = "2d__T__ball", "2d__T__block"
CHOICE = Choice({"ball": (BALL,), "block": (BLOCK,)}, ("0",), {}, 2)

Merge = Callable[..., Choice]


def run_of(home: Path, model: str) -> Run:
    return ModelFolder(home / "results" / DATASET / model).run("0")


@pytest.fixture
def merged(tmp_path: Path) -> Merge:
    """Merges a sure model of the block, and one of the ball that also claims the block's first slice, less surely."""
    workspace = Workspace(planned_home(tmp_path))
    for organ, model, confidence in (("ball", BALL, 2.0), ("block", BLOCK, 4.0)):
        run = record_run(run_of(tmp_path, model), plan_of(organ))
        for case in "ab":
            label_map = truth(case, plan_of(organ))
            if organ == "ball":
                label_map[first_slice_of_block(case)] = 1
            save_prediction(run, case, one_hot(label_map, plan_of(organ), confidence), plan_of(organ))

    def merge(choice: Choice = CHOICE) -> Choice:
        cross_validation = cross_validation_of(tmp_path, {"0": "ab"})
        return choose_postprocessing(workspace, planned_dataset(workspace, 1), cross_validation, choice, scores_before())

    return merge


def first_slice_of_block(case: str) -> np.ndarray:
    labels = truth(case)
    return (labels == 2) & (np.arange(len(labels)) == len(labels) - 5)[:, None, None]


def scores_before() -> dict[str, list[Score]]:
    """Scores of each model's map before merging."""
    found: dict[str, list[Score]] = {BALL: [], BLOCK: []}
    for case in "ab":
        labels = truth(case)
        wrong = np.where(first_slice_of_block(case), 1, labels)
        found[BALL].append(score_case(case, wrong, labels, make_plan().labels, metrics=())[0])
        found[BLOCK].append(score_case(case, labels, labels, make_plan().labels, metrics=())[1])
    return found


def test_voxels_that_two_organs_claim_are_counted_and_go_to_the_surer_one(merged: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], held_out.apply_selection
    monkeypatch.setattr(held_out, "apply_selection", lambda *given: calls.append(given) or real(*given))
    choice, claimed = merged(), [int(first_slice_of_block(case).sum()) for case in "ab"]
    found = choice.merged
    assert found is not None
    assert (found.conflicts, found.most, found.cases) == (np.mean(claimed), max(claimed), 2)
    assert found.alone["ball"] == pytest.approx(np.mean([score.dice for score in scores_before()[BALL]]))
    assert found.alone["ball"] < 0.95
    assert found.together == {"ball": 1.0, "block": 1.0}
    assert (choice.postprocessing, len(calls)) == ({}, 2), "every case is merged once"
    text = describe_choice(choice)
    assert "16 voxels a case are claimed by two organs (at most 16)" in text
    assert "calibrated averages, change ball 0." in text and " -> 1.0000" in text and "block 1.0000" not in text


def test_one_candidate_for_all_has_nothing_to_merge(merged: Merge) -> None:
    assert merged(replace(CHOICE, organs={"ball": (BALL,)})).merged is None


def test_cases_whose_probabilities_are_gone_are_left_out(merged: Merge, tmp_path: Path) -> None:
    run_of(tmp_path, BALL).logits("a").unlink()
    found = merged().merged
    assert found is not None and found.cases == 1
    run_of(tmp_path, BALL).logits("b").unlink()
    assert merged().merged is None


A, B, BOTH = Candidate(("a",)), Candidate(("b",)), Candidate(("a", "b"))


def scored(name: str) -> list[Score]:
    """Seven cases; a is better at the ball, b at the block, their average between them."""
    dice = {"a": {"ball": 0.95, "block": 0.90}, "b": {"ball": 0.90, "block": 0.95}, "a + b": {"ball": 0.93, "block": 0.93}}[name]
    return [Score(f"case_{number}", organ, value + number / 1000, 0.8, 10, 10) for number in range(7) for organ, value in dice.items()]


def chosen(together: dict[str, float], *, cases: int = 7) -> Choice:
    """The choice of a for the ball and b for the block, whose merged map has these means."""
    candidates = [A, B, BOTH]
    choice = choose({one.name: scored(one.name) for one in candidates}, candidates, ("ball", "block"), folds="0", rule="best_mean")
    assert choice.organs == {"ball": ("a",), "block": ("b",)}
    alone = {organ: choice.table[members[0]][organ] for organ, members in choice.organs.items()}
    return replace(choice, merged=OrganMerging(5.0, 9, cases, alone, together), member_folds={"a": ("0",), "b": ("0",)})


@pytest.mark.parametrize(("together", "wins"), [({"ball": 0.953, "block": 0.904}, False), ({"ball": 0.953, "block": 0.89}, True)])
def test_a_model_alone_is_taken_for_all_where_its_map_is_better_than_the_merged_one(together: dict[str, float], wins: bool) -> None:
    choice, candidates = chosen(together), [A, B, BOTH]
    found = better_alone(choice, candidates)
    if not wins:
        assert found is None
        return
    assert found is not None and found[0] is A
    assert "a for all organs" in found[1] and "0.9280 and 0.9215" in found[1]
    scores = {one.name: scored(one.name) for one in candidates}
    again = taken_for_all(choice, *found, scores=scores, candidates=candidates, context=SelectionContext())
    assert (again.organs, again.merged, set(again.member_folds)) == ({"ball": ("a",), "block": ("a",)}, None, {"a"})
    assert {organ: one.candidate for organ, one in again.evidence.items()} == {"ball": "a", "block": "a"}
    assert again.evidence["block"].compared["b"].difference == pytest.approx(-0.05)
    assert again.reasons["ball"] == choice.reasons["ball"]
    assert again.reasons["block"].startswith(found[1]) and choice.reasons["block"] in again.reasons["block"]
    assert better_alone(again, candidates) is None


def test_models_that_were_judged_on_other_cases_than_the_merged_map_are_not_compared_with_it() -> None:
    assert better_alone(chosen({"ball": 0.5, "block": 0.5}, cases=6), [A, B, BOTH]) is None
    assert better_alone(chosen({"ball": 0.5, "block": 0.5}), [Candidate(("c",)), BOTH]) is None
