"""Scores of candidates over the cross-validation: computed once, stored, and the same as label map by label map."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from factories import (
    DATASET,
    add_model,
    cross_validation_of,
    make_plan,
    one_hot,
    plan_of,
    planned_home,
    record_run,
    save_prediction,
    truth,
    write_labels,
)

from autoseg import cli
from autoseg.data.images import read_label
from autoseg.data.labels import to_file_values
from autoseg.data.references import reference_of
from autoseg.evaluation.case_scores import score_case
from autoseg.evaluation.metrics import has_value, value_of
from autoseg.inference.export import export_labels
from autoseg.inference.postprocessing import apply_postprocessing
from autoseg.inference.quantised_logits import load_logits
from autoseg.pipeline import describe_choice, find_best_configuration
from autoseg.runtime.provenance import content_id
from autoseg.runtime.runs import Run
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Candidate, Choice, PostProcessing, Score
from autoseg.selection import candidate_scores, cross_validation
from autoseg.selection.candidate_scores import scores_of_averages, scores_of_models
from autoseg.selection.cross_validation import CrossValidation

MODELS = ("2d__Trainer", "3d_fullres__Trainer", "3d_lowres__Trainer")
AVERAGES = [Candidate(members) for size in (2, 3) for members in combinations(MODELS, size)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three models that are wrong in their own ways in cases a and b; one works on a coarser grid."""
    for number, model in enumerate(MODELS):
        add_wrong_model(task_of(planned_home(tmp_path)).run(model, "0"), number)
    return tmp_path


@pytest.fixture
def averaged(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, ...]]]:
    """The averages that are computed from now on, case by case."""
    found, real = [], candidate_scores.average_all
    monkeypatch.setattr(
        candidate_scores, "average_all", lambda models, some, labels, **how: found.append(some) or real(models, some, labels, **how)
    )
    return found


def add_wrong_model(run: Run, seed: int) -> None:
    """A model with random errors, and their label maps and scores."""
    plan, scores = make_plan(), []
    for case in "ab":
        reference = truth(case)
        grid = tuple(n - n // 3 for n in reference.shape) if seed == 2 else reference.shape
        places = np.ix_(*(np.round(np.linspace(0, n - 1, m)).astype(int) for n, m in zip(reference.shape, grid, strict=True)))
        right = one_hot(reference[places], plan, 2.0)
        errors = np.random.default_rng([seed, ord(case)]).normal(0, 1, right.shape)
        save_prediction(run, case, right + errors, plan, shape=reference.shape)
        label_map = export_labels([load_logits(run.validation, case)], plan.labels)
        write_labels(run.label_map(case, ".nii.gz"), to_file_values(label_map, plan.labels))
        scores += score_case(case, label_map, reference, plan.labels, metrics=())
    record_run(run, plan, scores)


def task_of(home: Path, metric: str = "dice", **changes: object) -> CrossValidation:
    return cross_validation_of(home, {"0": "ab"}, metric=metric, **changes)


def one_by_one(task: CrossValidation, candidate: Candidate) -> list[Score]:
    """Scores every average for itself, through the export."""
    found = []
    for case in task.cases["0"]:
        folders = [task.run(name, "0").validation for name in candidate.members]
        prediction = export_labels([load_logits(folder, case.name) for folder in folders], task.plan.labels)
        reference, spacing = reference_of(case, task.plan.labels)
        found += task.score(case, prediction, reference, task.plan.labels, spacing)
    return found


@pytest.mark.parametrize("metric", ["dice", "precision", "ravd", "nsd_surface", "chaos", "hd95_border"])
def test_averages_have_the_scores_of_their_label_maps(home, metric, monkeypatch):
    monkeypatch.setattr(cross_validation, "MANY", 0 if metric == "dice" else np.inf)  # Dice is computed in further processes
    task = task_of(home, metric, tolerances={"ball": 2.0})
    found = scores_of_averages(task, AVERAGES)
    assert list(found) == [candidate.name for candidate in AVERAGES]
    for candidate in AVERAGES:
        for one, other in zip(found[candidate.name], one_by_one(task, candidate), strict=True):
            assert replace(one, dice=0, iou=0, other={}) == replace(other, dice=0, iou=0, other={})
            assert (one.dice, one.iou) == pytest.approx((other.dice, other.iou)) and one.other == pytest.approx(other.other)
    assert len({score.dice for scores in found.values() for score in scores}) > 8, "the averages differ"


def test_only_what_is_new_is_computed(home, averaged):
    task = task_of(home)
    scores_of_averages(task, AVERAGES[:1])
    first = scores_of_averages(task, AVERAGES)
    assert averaged[2:] == [[one.members for one in AVERAGES[1:]]] * 2
    folder = task.results / MODELS[2] / "fold_0" / "validation"
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    del averaged[:]
    assert scores_of_averages(task, AVERAGES) == first
    assert averaged == [], "times say nothing"
    save_prediction(task.run(MODELS[2], "0"), "a", one_hot(truth("b"), task.plan), task.plan)
    scores_of_averages(task, AVERAGES)
    assert averaged == [[one.members for one in AVERAGES if MODELS[2] in one.members]], "of case a, whose file is another one"


def test_another_reference_or_tolerance_makes_everything_new(home, averaged):
    scores_of_averages(task_of(home, "nsd_surface"), AVERAGES)
    del averaged[:]
    task = task_of(home, "nsd_surface", tolerances={"ball": 3.0})
    scores_of_averages(task, AVERAGES)
    assert len(averaged) == 2
    label = task.cases["0"][1].label
    os.utime(label, ns=(1, 1))
    scores_of_averages(task, AVERAGES)
    assert len(averaged) == 2, "times say nothing"
    write_labels(label, read_label(label).array[::-1].copy())
    scores_of_averages(task, AVERAGES)
    assert len(averaged) == 3


def test_recorded_ids_of_references_are_believed_and_the_raw_files_not_read(home, averaged):
    task = task_of(home)
    described = tuple(replace(case, digests=("image", content_id(case.label))) for case in task.cases["0"])
    first = scores_of_averages(replace(task, cases={"0": described}), AVERAGES)
    for case in described:
        case.label.unlink()
    assert scores_of_averages(replace(task, cases={"0": described}), AVERAGES) == first
    assert len(averaged) == 2


def test_what_0_1_0_computed_is_read_where_the_sizes_agree(home, averaged):
    task = task_of(home)
    first = scores_of_averages(task, AVERAGES)
    for path in (task.results / "candidates").rglob("*.json"):
        record = read_json(path, dict)
        by_size = {name: re.sub(r"[0-9a-f]{64}:(\d+)", r"\1:1700000000000000000", state) for name, state in record["made_from"].items()}
        assert by_size != record["made_from"]
        write_json(path, record | {"made_from": by_size})
    assert scores_of_averages(task, AVERAGES) == first
    assert len(averaged) == 2
    label = task.cases["0"][1].label
    label.write_bytes(label.read_bytes() + b"\0")
    scores_of_averages(task, AVERAGES)
    assert len(averaged) == 3


def test_organs_that_were_not_annotated_have_no_score(home):
    task = task_of(home)
    partial = (replace(task.cases["0"][0], annotated=("ball",)), task.cases["0"][1])
    found = scores_of_averages(replace(task, cases={"0": partial}), AVERAGES[:1])[AVERAGES[0].name]
    assert [(one.case, one.organ) for one in found] == [("a", "ball"), ("b", "ball"), ("b", "block")]


def test_a_metric_that_older_runs_lack_is_computed_from_their_label_maps(home):
    task = task_of(home, "chaos")
    found = scores_of_models(task, MODELS)
    for name in MODELS:
        expected = one_by_one(task, Candidate((name,)))
        assert [score.other["chaos"] for score in found[name]] == pytest.approx([score.other["chaos"] for score in expected])
    assert all(not score.other for score in task.run(MODELS[0], "0").scores()), "a finished run is not written to"
    assert find_best_configuration(1, home=home, metric="chaos").metric == "chaos"


def test_files_that_are_gone_or_damaged_are_named(home):
    folder = task_of(home).run(MODELS[0], "0").validation
    (folder / "b.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"b\.nii\.gz: missing, and chaos is not among the stored scores"):
        scores_of_models(task_of(home, "chaos"), MODELS)
    assert len(scores_of_models(task_of(home), MODELS)) == 3
    (folder / "b.b2nd").write_bytes(b"no")
    with pytest.raises(ValueError, match="1 of 2 cases failed; the first: fold 0, b: .*b.b2nd"):
        scores_of_averages(task_of(home), AVERAGES)


@pytest.mark.parametrize("damaged", ["b.b2nd", "b.trace.json", "b.nii.gz", "the reference", "what is known"])
def test_a_choice_goes_on_without_a_damaged_case(home, damaged, capsys):
    if damaged == "what is known":
        find_best_configuration(1, home=home)
    folder = task_of(home).run(MODELS[0], "0").validation
    reference, known = task_of(home).cases["0"][1].label, home / "results" / DATASET / "candidates/dice/fold_0/b.json"
    path = {"the reference": reference, "what is known": known}.get(damaged) or folder / damaged
    path.write_bytes(path.read_bytes()[:40])
    metric = "chaos" if damaged == "b.nii.gz" else "dice"
    status = cli.find_best_configuration(["1", "--home", str(home), "--metric", metric])
    printed = capsys.readouterr()
    if damaged == "what is known":
        assert status == 0 and read_json(home / "results" / DATASET / "choice.json", Choice).cases == 2
        return
    assert status == 1 and path.name in printed.err
    assert printed.out.splitlines()[-1].startswith("Chosen by 1 case; 1 of 4 cases failed: b (")
    choice = read_json(home / "results" / DATASET / "choice.json", Choice)
    assert choice.cases == 1 and len(choice.organs) == 2


@pytest.mark.parametrize("metric", ["dice", "chaos"])
def test_candidates_are_compared_with_the_post_processing_that_is_asked_for(home, metric, averaged):
    words = ("largest", "block=none")
    raw, task = task_of(home, metric), task_of(home, metric, postprocess=words)
    found = scores_of_models(task, MODELS) | scores_of_averages(task, AVERAGES)
    labels, steps = task.plan.labels, {"ball": PostProcessing(components=1)}
    for candidate in [*(Candidate((name,)) for name in MODELS), *AVERAGES]:
        for case in task.cases["0"]:
            prediction = export_labels([load_logits(task.run(name, "0").validation, case.name) for name in candidate.members], labels)
            cleaned = apply_postprocessing(prediction, labels, steps, (1.0, 1.0, 1.0))
            reference, spacing = reference_of(case, labels)
            expected = raw.score(case, cleaned, reference, labels, spacing)
            own = [score for score in found[candidate.name] if score.case == case.name]
            assert [value_of(one, metric) for one in own] == pytest.approx([value_of(one, metric) for one in expected])
    assert not all(
        score.dice == other.dice for score, other in zip(found[MODELS[0]], scores_of_models(raw, MODELS)[MODELS[0]], strict=True)
    )
    assert all(has_value(score, "hd_border") for score in found[MODELS[0]]), "also by the other metrics of validation"
    del averaged[:]
    again = scores_of_models(task, MODELS) | scores_of_averages(task, AVERAGES)
    assert repr(again) == repr(found) and averaged == []
    choice = find_best_configuration(1, home=home, metric=metric, postprocess=words)
    mean = np.mean([value_of(score, metric) for score in found[MODELS[1]] if score.organ == "ball"])
    assert choice.table[MODELS[1]]["ball"] == pytest.approx(mean) and "with post-processing (largest block=none)" in describe_choice(choice)


def test_models_of_some_organs_are_averaged_among_themselves(home):
    pair = Candidate(("2d__T0__block", "2d__T1__block"), ("block",))
    for name in pair.members:
        add_model(home, name, plan_of("block"))
    found = scores_of_averages(task_of(home), [*AVERAGES, pair])
    assert [(one.case, one.organ, one.dice) for one in found[pair.name]] == [("a", "block", 1.0), ("b", "block", 1.0)]
    assert {score.organ for score in found[AVERAGES[0].name]} == {"ball", "block"}
