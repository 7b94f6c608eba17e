"""Patients of predicted cases: as the user says, as noted with predictions, as the images' dataset or headers say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from dicom_files import stack, voxels, write_series
from factories import ThresholdModel, ensemble_of, make_plan, predict, write_images

from autoseg.inference.manifest import recorded_cases
from autoseg.pipeline.known_patients import known_patients, with_patients
from autoseg.schema import Case
from autoseg.schema.settings import PlanSettings

NAMES = ["new_0", "new_1"]


def merged(*given: object, **more: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for _, some in reversed(known_patients(*given, **more)):
        found |= some
    return found


def test_patients_are_noted_with_predictions_and_found_again(tmp_path: Path) -> None:
    plan = dataclasses.replace(make_plan(), settings=PlanSettings(groups="^(new)_"))
    cases, out = with_patients(write_images(tmp_path / "in", 2), plan), tmp_path / "out"
    assert predict(cases, out, ensemble_of(a=ThresholdModel())) == {}
    for case in cases:
        case.images[0].unlink()
    assert merged(NAMES, [out]) == merged(NAMES, [out / "new_0.nii.gz"]) == {"new_0": "new", "new_1": "new"}
    (tmp_path / "p.json").write_text('{"new_0": "a", "new_1": "b"}')
    assert merged(NAMES, [out], groups=str(tmp_path / "p.json")) == {"new_0": "a", "new_1": "b"}
    with pytest.raises(ValueError, match="found none for new_1"):
        merged(NAMES, [out], groups="^(.*)_0")
    assert merged(["other"], [out, tmp_path / "none"]) == {}


def test_patients_of_images_that_are_still_there(tmp_path: Path) -> None:
    cases = write_images(tmp_path / "Dataset001" / "imagesTs", 2)
    info = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "groups": {"new_0": "p", "new_1": "p"}}
    assert predict(cases, tmp_path / "out", ensemble_of(a=ThresholdModel())) == {}
    assert merged(NAMES, [tmp_path / "out"]) == {}
    (tmp_path / "Dataset001" / "dataset.json").write_text(json.dumps(info))
    assert merged(NAMES, [tmp_path / "out"]) == {"new_0": "p", "new_1": "p"}
    assert [case.group for case in with_patients(cases, make_plan())] == ["p", "p"]


def test_patients_of_dicom_series_are_those_of_their_headers(tmp_path: Path) -> None:
    for name in NAMES:
        write_series(tmp_path / name, voxels(), stack(), PatientID="p7")
    cases = [Case(name, (tmp_path / name,)) for name in NAMES]
    predict(cases, tmp_path / "out", ensemble_of(a=ThresholdModel()))
    assert set(recorded_cases(tmp_path / "out")) == set(NAMES)
    assert merged(NAMES, [tmp_path / "out"]) == {"new_0": "p7", "new_1": "p7"}
