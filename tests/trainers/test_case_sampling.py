"""Which cases patches come from: shares of datasets and of rare organs, the same for the same seed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import CASES, fingerprint_of, labels, make_configuration, make_job, make_plan, write_dataset, write_store

from autoseg.data.datasets import load_dataset
from autoseg.presets.settings import train_settings
from autoseg.runtime.serialization import from_jsonable, to_jsonable, write_json
from autoseg.schema import Split
from autoseg.schema.run_record import RunRecord
from autoseg.trainers.batches import TRAINING, VALIDATION, BatchMaker
from autoseg.trainers.case_sampling import CASE_SAMPLINGS, case_draw, repeat_factors, with_case_facts
from autoseg.trainers.option_names import check_option_names
from autoseg.trainers.patch_sampling import is_foreground_slot
from autoseg.trainers.run_options import RunFolders

SIZES = {"LiTS": 13, "KiTS": 21, "Spleen": 4, "BTCV": 2}
"""A tenth of the cases of Fang and Yan's four datasets."""
NAMES = [f"{source}_{number}" for source, count in SIZES.items() for number in range(count)]


def a_job(sampling: str, *, batch: int = 3, seed: int = 3, **changes: object) -> RunRecord:
    job = make_job(make_plan(make_configuration(batch_size=batch)), case_sampling=sampling)
    return dataclasses.replace(job, sources={name: name.split("_")[0] for name in NAMES}, seed=seed, **changes)


def drawn(job: RunRecord, batches: int, names: list[str] = NAMES) -> list[list[str]]:
    """Names of the cases of each batch, as `BatchMaker` draws them."""
    draw = case_draw(names, job, training=True)
    size = job.configuration.batch_size
    return [[draw(np.random.default_rng([job.seed, number, index]), number, index) for index in range(size)] for number in range(batches)]


def shares(batches: list[list[str]]) -> Counter[str]:
    return Counter(name.split("_")[0] for batch in batches for name in batch)


def test_fang_and_yan_alternate():
    assert train_settings("fang2020").changed_options["case_sampling"] == "alternating"


def test_by_default_the_largest_dataset_is_shown_most():
    found = shares(drawn(a_job("cases"), 400))
    assert found["BTCV"] < 0.08 * 1200 < 0.4 * 1200 < found["KiTS"]


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("sampling", ["datasets", "alternating"])
def test_each_dataset_has_the_same_share_and_in_it_each_case(sampling, batch):
    batches = drawn(a_job(sampling, batch=batch), 400)
    assert set(shares(batches).values()) == {100 * batch}
    assert set(sum(batches, [])) == set(NAMES)
    of_btcv = Counter(name for one in batches for name in one if name.startswith("BTCV"))
    assert min(of_btcv.values()) > 0.35 * 100 * batch


def test_alternating_batches_are_of_one_dataset_each_in_turn():
    batches = drawn(a_job("alternating"), 12)
    sources = [{name.split("_")[0] for name in batch} for batch in batches]
    assert all(len(one) == 1 for one in sources)
    assert [set().union(*sources[start : start + 4]) for start in (0, 4, 8)] == [set(SIZES)] * 3


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("sampling", ["datasets", "alternating"])
def test_the_patches_that_must_show_an_organ_are_of_all_datasets_alike(sampling, batch):
    batches = drawn(a_job(sampling, batch=batch), 600)
    found = [
        name.split("_")[0]
        for number, names in enumerate(batches)
        for index, name in enumerate(names)
        if is_foreground_slot(index, batch, 0.33, number=number)
    ]
    counts = Counter(found)
    assert len(counts) == 4 and max(counts.values()) < 1.5 * min(counts.values())


@pytest.mark.parametrize("sampling", CASE_SAMPLINGS)
def test_a_draw_is_a_function_of_seed_and_number(sampling):
    job = a_job(sampling, case_weights={name: 1.0 + number for number, name in enumerate(NAMES)})
    first, again = drawn(job, 20), drawn(job, 20, NAMES[::-1])
    assert first == again
    draw = case_draw(NAMES, job, training=True)
    assert [draw(np.random.default_rng([job.seed, 17, index]), 17, index) for index in range(3)] == first[17], "whatever came before"
    assert drawn(dataclasses.replace(job, seed=4), 20) != first
    assert from_jsonable(to_jsonable(job), RunRecord) == job


def test_a_dataset_none_of_whose_cases_can_be_used_has_no_turn():
    batches = drawn(a_job("datasets", batch=2), 30, [name for name in NAMES if not name.startswith("KiTS")])
    assert shares(batches) == {"LiTS": 20, "Spleen": 20, "BTCV": 20}


class TestRareOrgans:
    def test_factors_by_hand(self):
        organs = {f"c{number}": ["liver"] for number in range(97)} | {"tumour": ["liver", "lesion"], "other": ["lesion"], "none": []}
        found = repeat_factors(organs)
        assert found["c0"] == pytest.approx((100 / 98) ** 0.5)
        assert found["tumour"] == found["other"] == pytest.approx((100 / 2) ** 0.5)
        assert found["none"] == 1.0

    def test_cases_are_drawn_in_proportion(self):
        weights = {name: 8.0 if name.startswith("BTCV") else 1.0 for name in NAMES}
        found = shares(drawn(a_job("rare_organs", case_weights=weights), 1000))
        assert found["BTCV"] / 3000 == pytest.approx(16 / 54, abs=0.03)
        assert found["KiTS"] / 3000 == pytest.approx(21 / 54, abs=0.03)

    def test_facts_come_from_the_fingerprint_and_the_log_says_the_shares(self, tmp_path, caplog):
        caplog.set_level("INFO")
        dataset = load_dataset(write_dataset(tmp_path / "Dataset001_Tiny"))
        measured, _ = fingerprint_of(dataset, workers=0)
        cases = [dataclasses.replace(one, voxels=(one.voxels[0], one.voxels[1] * (one.name == "b"))) for one in measured.cases]
        write_json(tmp_path / "fingerprint.json", dataclasses.replace(measured, cases=tuple(cases)))
        job = dataclasses.replace(make_job(make_plan(), case_sampling="rare_organs"), split=Split(CASES[:3], CASES[3:]))
        job = with_case_facts(job, dataset, tmp_path / "fingerprint.json")
        assert job.case_weights == {"a": 1.0, "b": pytest.approx(3**0.5), "c": 1.0}
        assert "block: 46% (of the cases 33%)" in caplog.text
        alone = dataclasses.replace(job, plan=dataclasses.replace(job.plan, labels=labels(ball=2), data_labels=job.plan.labels))
        assert set(with_case_facts(alone, dataset, tmp_path / "fingerprint.json").case_weights.values()) == {1.0}, "of this model's organs"


def test_of_a_single_dataset_it_is_said_and_cases_are_drawn_alike(tmp_path, caplog):
    dataset = load_dataset(write_dataset(tmp_path / "Dataset001_Tiny"))
    measured, _ = fingerprint_of(dataset, workers=0)
    write_json(tmp_path / "fingerprint.json", measured)
    job = with_case_facts(make_job(make_plan(), case_sampling="alternating"), dataset, tmp_path / "fingerprint.json")
    assert "the cases are of one dataset" in caplog.text
    assert set(sum(drawn(job, 20, list(CASES)), [])) == set(CASES)
    plain = make_job(make_plan())
    assert with_case_facts(plain, dataset, Path("not read")) == plain


def test_datasets_without_annotations_of_a_models_organs_have_no_share(tmp_path, caplog):
    """A model of the ball alone sees no case of the dataset that outlines blocks only."""
    caplog.set_level("INFO")
    dataset = load_dataset(write_dataset(tmp_path / "Dataset001_Tiny"))
    measured, _ = fingerprint_of(dataset, workers=0)
    write_json(tmp_path / "fingerprint.json", measured)
    of = {"a": ("lits", ("ball",)), "b": ("kits", ("block",)), "c": ("btcv", None), "d": ("btcv", None)}
    cases = [dataclasses.replace(one, source=of[one.name][0], annotated=of[one.name][1]) for one in dataset.cases]
    dataset, job = dataclasses.replace(dataset, cases=tuple(cases)), make_job(make_plan(), case_sampling="alternating")
    job = dataclasses.replace(job, split=Split(CASES[:3], CASES[3:]))
    alone = dataclasses.replace(job, plan=dataclasses.replace(job.plan, labels=labels(ball=2), data_labels=job.plan.labels))
    assert set(with_case_facts(alone, dataset, tmp_path / "fingerprint.json").sources.values()) == {"lits", "btcv"}
    assert "Each dataset gets 50 % of the patches: btcv (1 cases), lits (1 cases)." in caplog.text


def test_cases_that_are_never_drawn_and_unions_make_no_organ_rarer_or_less_rare(tmp_path, caplog):
    caplog.set_level("INFO")
    dataset = load_dataset(write_dataset(tmp_path / "Dataset001_Tiny"))
    measured, _ = fingerprint_of(dataset, workers=0)
    write_json(tmp_path / "fingerprint.json", measured)
    annotated = {"a": ("ball",), "b": ("block",), "c": ("ball", "block"), "d": ("ball + block",)}
    cases = tuple(dataclasses.replace(one, annotated=annotated[one.name]) for one in dataset.cases)
    dataset, job = dataclasses.replace(dataset, cases=cases), make_job(make_plan(), case_sampling="rare_organs")
    job = dataclasses.replace(job, split=Split(CASES, ()))
    weights = with_case_facts(job, dataset, tmp_path / "fingerprint.json").case_weights
    assert weights == {"a": pytest.approx(2**0.5), "b": pytest.approx(2**0.5), "c": pytest.approx(2**0.5), "d": 1.0}
    alone = dataclasses.replace(job, plan=dataclasses.replace(job.plan, labels=labels(ball=2), data_labels=job.plan.labels))
    assert with_case_facts(alone, dataset, tmp_path / "fingerprint.json").case_weights == {"a": 1.0, "c": 1.0}
    assert "Patches come from cases with ball: 100% (of the cases 100%)." in caplog.text


def test_an_unknown_name_is_refused_before_anything_begins():
    with pytest.raises(ValueError, match="case_sampling: expected one of alternating, cases, datasets, rare_organs, got 'dataset'"):
        check_option_names({"case_sampling": "dataset"})


def test_batches_follow_the_option_and_scored_patches_do_not(tmp_path):
    plan = make_plan()
    write_store(tmp_path / "data", plan)
    sources = {"a": "one", "b": "two", "c": "two", "d": "two"}
    for stream, sampling, expected in ((TRAINING, "datasets", 20), (TRAINING, "alternating", 20), (VALIDATION, "datasets", 8)):
        job = dataclasses.replace(make_job(plan, case_sampling=sampling), sources=sources)
        folders = RunFolders(tmp_path / "run", tmp_path / "data")
        make = BatchMaker(job, folders, CASES, stream=stream, device=torch.device("cpu"))
        seen = [case for number in range(20) for case in make(number).cases]
        assert seen.count("a") == expected if stream == TRAINING else seen.count("a") < 18
