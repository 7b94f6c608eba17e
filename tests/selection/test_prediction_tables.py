"""What every prediction says of its organs: volumes or areas, intensities on request, and how good the models were in validation."""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import story_data as data
from factories import ThresholdModel, ensemble_of, labels, make_geometry, regions, write_images

from autoseg.data.images import read_image, read_label, write_label
from autoseg.inference.manifest import MANIFEST
from autoseg.inference.organ_measures import measure_organs
from autoseg.inference.prediction import predict_cases
from autoseg.inference.prediction_files import destination_of
from autoseg.runtime.outputs import Outputs
from autoseg.runtime.serialization import read_json
from autoseg.schema import Case, Choice, Geometry, Image
from autoseg.schema.settings import PredictSettings
from autoseg.selection.organ_volumes import VOLUMES
from autoseg.selection.prediction_tables import conclude_prediction, is_table
from autoseg.selection.validated_dice import validated_dice, warn_of_low_dice

VALIDATED = {"ball": 0.91, "bar": 0.4321}


def predict(cases: list[Case], out: Path, *, overwrite: bool = False, **options: object) -> list[dict[str, str]]:
    """The rows of the table of volumes after a prediction."""
    destination, cases = destination_of(out, cases, PredictSettings(**options), dim=3)
    ensemble, outputs = ensemble_of(a=ThresholdModel()), Outputs("autoseg_predict", inputs=[], overwrite=overwrite, is_own=is_table)
    assert predict_cases(cases, destination, ensemble, outputs, validated=VALIDATED) == {}
    conclude_prediction(destination, cases, ensemble, out, validated=VALIDATED, write=outputs.write)
    return rows_of(destination.folder / (f"{cases[0].name}_{VOLUMES}" if destination.single else VOLUMES))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_volumes_of_every_case_are_written_also_of_those_that_join_later(tmp_path: Path) -> None:
    cases, out = write_images(tmp_path / "in", 3), tmp_path / "out"
    assert {row["case"] for row in predict(cases[:1], out)} == {"new_0"}
    rows = predict(cases, out)
    assert [(row["case"], row["organ"]) for row in rows] == [(f"new_{n}", organ) for n in range(3) for organ in ("ball", "bar")]
    assert list(rows[0]) == ["case", "organ", "volume_ml", "voxels", "validation_dice"] and is_table(out / VOLUMES)
    for row in rows:
        label = read_label(out / f"{row['case']}.nii.gz").array
        voxels = np.count_nonzero(label == {"ball": data.BALL, "bar": data.BAR}[row["organ"]])
        assert int(row["voxels"]) == voxels and float(row["volume_ml"]) == pytest.approx(voxels * math.prod(data.SPACING) / 1000, rel=1e-5)
        assert float(row["validation_dice"]) == VALIDATED[row["organ"]]
    noted = read_json(out / MANIFEST, dict)["cases"]
    assert all(entry["validation_dice"] == VALIDATED for entry in noted.values())
    assert all(entry["warnings"] == ["bar: not to be relied on, validation Dice 0.43"] for entry in noted.values())


def test_a_corrected_label_map_is_measured_as_it_is_now(tmp_path: Path) -> None:
    cases, out = write_images(tmp_path / "in", 1), tmp_path / "out"
    predict(cases, out)
    corrected = read_label(out / "new_0.nii.gz")
    array = corrected.array.copy()
    array[array == data.BAR] = 0
    write_label(out / "new_0.nii.gz", array, corrected.geometry)
    ball, bar = predict(cases, out)
    assert (bar["voxels"], bar["volume_ml"]) == ("0", "0") and int(ball["voxels"]) == np.count_nonzero(array == data.BALL)


def test_statistics_of_what_was_predicted_before_are_added(tmp_path: Path) -> None:
    cases, out = write_images(tmp_path / "in", 2), tmp_path / "out"
    predict(cases, out)
    rows = predict(cases, out, statistics=True)
    assert list(rows[0])[5:] == ["mean_CT_HU", "sd_CT_HU", "estimated_dice"]
    for row in rows:
        image = read_image([tmp_path / "in" / f"{row['case']}_0000.nii.gz"]).array[0]
        inside = image[read_label(out / f"{row['case']}.nii.gz").array == {"ball": data.BALL, "bar": data.BAR}[row["organ"]]]
        assert (float(row["mean_CT_HU"]), float(row["sd_CT_HU"])) == pytest.approx((inside.mean(), inside.std()), rel=1e-3)
        assert 0 < float(row["estimated_dice"]) <= 1
    assert "mean_CT_HU" in predict(cases[:1], out)[0], "what is known of the folder stays"


def test_a_named_file_has_a_table_of_its_name(tmp_path: Path) -> None:
    cases = write_images(tmp_path / "in", 2)
    for case, name in zip(cases, ("first", "second"), strict=True):
        assert {row["case"] for row in predict([case], tmp_path / f"{name}.nii.gz")} == {name}


def test_regions_count_whole_and_areas_stand_for_volumes_in_2d() -> None:
    nested = regions(whole=(1, 2), core=(2,), order=(1, 2))
    array = np.zeros((4, 6), np.int16)
    array[1:3, 1:5], array[1, 1] = 1, 2
    flat = Geometry((4, 6), (2.0, 0.5), (0, 0), (1, 0, 0, 1))
    found = measure_organs(array, nested, flat, Image(np.stack([array * 10.0, array * -1.0]), flat))
    assert {organ: (one.voxels, one.size, one.unit) for organ, one in found.items()} == {"whole": (8, 8.0, "mm2"), "core": (1, 1.0, "mm2")}
    assert found["whole"].mean == pytest.approx((90 / 8, -9 / 8)) and found["core"].deviation == (0, 0)
    unknown = measure_organs(array, nested, dataclasses.replace(flat, has_spacing=False))
    assert unknown["whole"].voxels == 8 and math.isnan(unknown["whole"].size)
    solid = measure_organs(np.ones((40, 3, 3), np.int16), labels(a=1, b=2), make_geometry((40, 3, 3), (2.0, 1.0, 1.0)))
    assert (solid["a"].size, solid["b"].voxels) == (0.72, 0)


def test_low_dice_is_warned_of_and_unknown_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        warn_of_low_dice({"liver": 0.91, "spleen": 0.31, "aorta": math.nan})
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "spleen 0.31" in warning and "liver" not in warning and "below 0.5" in warning
    assert "Not validated on held-out cases: aorta." in caplog.messages


def test_without_any_score_the_dice_is_unknown(tmp_path: Path) -> None:
    choice = Choice({"liver": ("2d__Trainer",)}, ("all",), {}, 0)
    assert math.isnan(validated_dice(choice, tmp_path)["liver"])
    assert validated_dice(dataclasses.replace(choice, table={"2d__Trainer": {"liver": 0.7}}), tmp_path) == {"liver": 0.7}
