"""Contradictory NIfTI headers from the check to the scores: refused until somebody says which form is true, which the plan keeps."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from factories import change_info
from oracle_home import DATASET, HomeFactory, oracle_case, write_oracle_dataset

from autoseg.cli.data import check, merge
from autoseg.data.checks import AMBIGUOUS, SETTLED, check_dataset
from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import read_geometry, read_image, read_label, write_image
from autoseg.data.repair import fix_dataset
from autoseg.pipeline import PlanSettings, PredictSettings, plan_and_preprocess, predict, predict_folder
from autoseg.pipeline.evaluating import evaluate_predictions
from autoseg.report.overlays import OverlaySettings, draw_overlays
from autoseg.runtime.serialization import read_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Fingerprint

SFORM = 280


def patch(path: Path, *sform: float) -> Path:
    """Replaces the 12 numbers of the sform and leaves the qform."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<12f", data, SFORM, *sform)
    path.write_bytes(gzip.compress(bytes(data)))
    return path


def mirror(path: Path) -> Path:
    """The sform is the mirror image, left to right, of the qform, with other distances between the slices."""
    return patch(path, *(0.7, 0, 0, -18.9, 0, -0.8, 0, 0, 0, 0, 3.5, 0))


def lose(path: Path) -> Path:
    """The sform has lost its scale, as in files of ACDC."""
    return patch(path, *(-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A dataset of which ``c0`` is ambiguous and ``c1`` has lost the scale of its sforms."""
    folder = write_oracle_dataset(tmp_path / "raw" / DATASET)
    for number, change in enumerate((mirror, lose)):
        change(folder / "imagesTr" / f"c{number}_0000.nii.gz")
        change(folder / "labelsTr" / f"c{number}.nii.gz")
    return folder


def test_check_lists_contradictions_with_both_readings(raw: Path) -> None:
    found = check_dataset(raw, workers=0)
    assert [(one.case, one.kind, one.is_note) for one in found] == [("c0", AMBIGUOUS, False)] * 2 + [("c1", SETTLED, True)] * 2
    for one in found:
        assert "sform: spacing" in one.found
        assert "qform: spacing 0.7, 0.8, 2.5 mm (x, y, z), origin 0, 0, 0, direction 1 0 0; 0 1 0; 0 0 1" in one.found
    assert "sform: spacing 0.7, 0.8, 3.5 mm (x, y, z), origin 18.9, 0, 0, direction -1 0 0" in found[0].found
    assert "sform: spacing 1, 1, 1" in found[2].found
    assert found[2].expected == "one place; taken: qform"
    assert all(one.is_note for one in check_dataset(raw, workers=0, nifti_geometry="qform"))


def test_check_ends_with_1_for_what_is_ambiguous_only(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-d", "1", "--home", str(tmp_path), "--workers", "0"]
    assert check(options) == 1
    assert "contradictory header" in capsys.readouterr().out
    assert check([*options, "--nifti-geometry", "sform"]) == 0
    out = capsys.readouterr().out
    assert "contradictory header, read by the rule" in out
    assert "no problem found in 4 cases" in out
    assert "4 contradictory headers are read by the rule" in out


def test_fix_writes_headers_that_say_one_thing_and_leaves_out_what_is_ambiguous(raw: Path, tmp_path: Path) -> None:
    messages = fix_dataset(raw, check_dataset(raw, workers=0), tmp_path / "copy")
    assert [message.split(":")[0] for message in messages if "left out" in message] == ["case c0"]
    assert sorted(path.name for path in (tmp_path / "copy" / "labelsTr").iterdir()) == [f"c{number}.nii.gz" for number in (1, 2, 3)]
    for wanted in ("sform", "qform"):
        copy = tmp_path / wanted
        messages = fix_dataset(raw, check_dataset(raw, workers=0, nifti_geometry=wanted), copy, nifti_geometry=wanted)
        assert [message.split(":")[0] for message in messages] == ["case c0", "case c1"]
        assert "header that says one thing" in messages[0]
        assert check_dataset(copy, workers=0) == []
        for file in ("imagesTr/c0_0000.nii.gz", "labelsTr/c0.nii.gz"):
            assert read_geometry(copy / file) == read_geometry(raw / file, nifti_geometry=wanted)
            np.testing.assert_array_equal(read_image([copy / file]).array, read_image([raw / file], nifti_geometry=wanted).array)


def test_the_plan_keeps_which_form_is_true(raw: Path, tmp_path: Path) -> None:
    settings = PlanSettings(configurations=("2d",), workers=0)
    fingerprint = tmp_path / "preprocessed" / DATASET / "fingerprint.json"
    plan_and_preprocess(1, settings, home=tmp_path)
    copied = shutil.copytree(raw / "labelsTr", tmp_path / "copied")
    assert [case.name for case in read_json(fingerprint, Fingerprint).cases] == ["c1", "c2", "c3"]
    (result,) = evaluate_predictions(raw / "labelsTr", [copied], dataset="1", home=tmp_path).results
    assert list(result.failures) == ["c0"]
    assert "--nifti-geometry" in result.failures["c0"]
    plan = plan_and_preprocess(1, PlanSettings(configurations=("2d",), workers=0, nifti_geometry="qform"), home=tmp_path)
    assert plan.settings.nifti_geometry == "qform"
    assert {case.orientation for case in read_json(fingerprint, Fingerprint).cases} == {"SPL"}
    assert plan_and_preprocess(1, settings, home=tmp_path) == plan
    assert planned_dataset(Workspace(tmp_path), 1).nifti_geometry == "qform"
    (result,) = evaluate_predictions(raw / "labelsTr", [copied], dataset="1", home=tmp_path).results
    assert result.failures == {}
    assert {score.dice for score in result.scores} == {1.0}
    draw = {"reference": raw / "labelsTr", "home": tmp_path}
    assert draw_overlays(raw / "imagesTr", tmp_path / "p", settings=OverlaySettings(dataset="1"), **draw)[1] == {}
    assert list(draw_overlays(raw / "imagesTr", tmp_path / "q", **draw)[1]) == ["c0"]
    assert check(["-d", "1", "--home", str(tmp_path), "--workers", "0"]) == 0
    plan_and_preprocess(1, PlanSettings(configurations=("2d",), workers=0, nifti_geometry="sform"), home=tmp_path)
    assert [case.orientation for case in read_json(fingerprint, Fingerprint).cases] == ["SPR", "SPL", "SPL", "SPL"]


def test_prediction_reads_as_it_is_told(oracle_home: HomeFactory, tmp_path: Path) -> None:
    home, (image, label, geometry) = oracle_home(), oracle_case(9)
    path = mirror(write_image(tmp_path / "in" / "new.nii.gz", image[None], geometry))
    lose(write_image(tmp_path / "in" / "old.nii.gz", image[None], geometry))
    failures = predict_folder(tmp_path / "in", tmp_path / "out", home=home)
    assert list(failures) == ["new"]
    assert "--nifti-geometry" in failures["new"]
    assert read_geometry(tmp_path / "out" / "old.nii.gz").spacing == pytest.approx(geometry.spacing)
    for wanted in ("sform", "qform"):
        settings = PredictSettings(nifti_geometry=wanted)
        assert predict_folder(tmp_path / "in", tmp_path / "out", settings, home=home) == {}
        written = read_label(tmp_path / "out" / "new.nii.gz")
        np.testing.assert_array_equal(written.array, label)
        assert written.geometry == read_geometry(path, nifti_geometry=wanted)
        assert predict(path, settings=settings, home=home).GetOrigin() == pytest.approx(written.geometry.origin)


def test_merging_reads_as_it_is_told_or_as_was_planned(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_oracle_dataset(tmp_path / "raw" / "Dataset002_Other")
    change_info(other, labels={"background": 0, "gland": 1, "duct": 2})
    change_info(raw, labels={"background": 0, "liver": 1, "spleen": 2})
    mirror(other / "labelsTr" / "c0.nii.gz")  # renumbered, and so read and written anew
    arguments = ["-d", "1", "2", "--home", str(tmp_path)]
    assert merge([*arguments, "-o", "8"]) == 2
    assert "--nifti-geometry" in capsys.readouterr().err
    assert merge([*arguments, "-o", "9", "--nifti-geometry", "qform"]) == 0
    assert "Next: autoseg_plan_and_preprocess -d 9 --nifti-geometry qform" in capsys.readouterr().out
    (written,) = (tmp_path / "raw").glob("Dataset009_*/labelsTr/Other_c0.nii.gz")
    assert read_geometry(written) == read_geometry(other / "labelsTr" / "c0.nii.gz", nifti_geometry="qform")
