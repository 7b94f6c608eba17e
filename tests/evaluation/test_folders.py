"""Folders of label maps: matching, refusing and averaging."""

from __future__ import annotations

import json
import math
from pathlib import Path

import factories
import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.evaluation.folders import OrganSummary, evaluate_folders, mean_dice, summary, table
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Case, Labels, Score

LABELS = factories.labels(liver=3, spleen=7)


def save(path, array, *, spacing=(1.0, 1.0, 3.0), origin=(5.0, -4.0, 2.0), **options):
    flat = {"direction": np.eye(2)} if array.ndim == 2 else {}
    factories.write_volume(path, array, spacing=spacing[: array.ndim], origin=origin[: array.ndim], **flat, **options)


def volume(shift=0, spleen=True):
    """A liver of 4 x 4 x 4 voxels, moved along z, and a spleen of 2 x 2 x 2."""
    array = np.zeros((8, 10, 9), np.uint8)
    array[1 + shift : 5 + shift, 1:5, 1:5] = 3
    array[1:3, 7:9, 6:8] = 7 if spleen else 0
    return array


@pytest.fixture
def folders(tmp_path):
    reference, prediction = tmp_path / "labelsTr", tmp_path / "predicted"
    for folder, shift in ((reference, 0), (prediction, 1)):
        save(folder / "a.nii.gz", volume(shift=shift))
        save(folder / "b.nii.gz", volume(spleen=False))
    return reference, prediction


def dice_of(scores):
    return {(score.case, score.organ): score.dice for score in scores}


def test_every_case_and_organ_is_scored(folders):
    scores = evaluate_folders(*folders, LABELS, workers=1)
    assert repr(evaluate_folders(*folders, LABELS, workers=3)) == repr(scores)
    assert [(score.case, score.organ) for score in scores] == [(case, organ) for case in "ab" for organ in ("liver", "spleen")]
    assert [score.dice for score in scores] == pytest.approx([0.75, 1.0, 1.0, math.nan], nan_ok=True)
    assert mean_dice(scores) == pytest.approx((0.875 + 1.0) / 2)


def test_organs_that_were_outlined_only_together_are_scored_as_one(tmp_path):
    """Of a: which of the two a voxel is nobody knows; liver and spleen are found the wrong way round, which costs nothing."""
    labels = factories.labels(liver=3, spleen=7, ignore=9)
    reference, prediction = volume(), volume(shift=1)
    prediction[prediction > 0] = 10 - prediction[prediction > 0]
    reference[7, 9, 8], prediction[7, 9, 8] = 9, 3
    for folder, array in (("true", reference), ("found", prediction)):
        save(tmp_path / folder / "a.nii.gz", array)
    true, found = tmp_path / "true", tmp_path / "found"
    options = {"annotated": {"a": ["liver + spleen"]}, "tolerance_mm": {"liver": 7.0}}
    (score,) = evaluate_folders(true, found, labels, metrics=["nsd_border"], **options)
    assert (score.organ, score.n_reference, score.n_prediction) == ("liver + spleen", 72, 72)
    assert score.dice == pytest.approx(2 * 56 / 144)
    together = factories.regions(both=(3, 7), one=(3,), ignore=9)
    plain = evaluate_folders(true, found, together, metrics=["nsd_border"], tolerance_mm=7.0)
    assert (score.dice, score.other) == (plain[0].dice, plain[0].other)


@pytest.mark.parametrize("metrics", [None, ("lesion_false_positives", "hd_border")])
def test_without_labels_the_values_are_the_organs_also_of_cases_that_lack_one(folders, metrics):
    values = Labels(("label 3", "label 7"), ((3,), (7,)))
    alone, declared = (evaluate_folders(*folders, labels, metrics=metrics) for labels in (None, values))
    assert repr(alone) == repr(declared)
    assert (alone[-1].case, alone[-1].organ, alone[-1].other.get("lesion_false_positives", 0.0)) == ("b", "label 7", 0.0)


def test_without_labels_and_organs_there_is_nothing_to_score(tmp_path):
    for folder in ("r", "p"):
        save(tmp_path / folder / "a.nii.gz", np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(ValueError, match="found none with another value than 0"):
        evaluate_folders(tmp_path / "r", tmp_path / "p")


def test_distances_are_in_mm_if_only_the_prediction_has_a_spacing(tmp_path):
    save(tmp_path / "r" / "a.tif", volume())
    save(tmp_path / "p" / "a.nii.gz", volume(shift=1))
    liver, _ = evaluate_folders(tmp_path / "r", tmp_path / "p", LABELS, metrics=("hd_border",))
    assert liver.other["hd_border"] == 3.0


def test_formats_may_differ_and_two_files_may_be_given(folders):
    reference, prediction = folders
    (prediction / "a.nii.gz").unlink()
    save(prediction / "a.mha", volume(shift=1))
    assert dice_of(evaluate_folders(reference, prediction, LABELS))["a", "liver"] == pytest.approx(0.75)
    assert dice_of(evaluate_folders(reference / "a.nii.gz", prediction / "b.nii.gz", LABELS))["a", "spleen"] == 0.0


def test_two_dimensional_pictures(tmp_path):
    save(tmp_path / "r" / "a.png", volume()[2], spacing=(1.0, 1.0))
    save(tmp_path / "p" / "a.png", volume()[2], spacing=(0.5, 0.5))
    assert [score.dice for score in evaluate_folders(tmp_path / "r", tmp_path / "p", LABELS)] == [1.0, 1.0]


def test_picture_beside_a_prediction_is_not_mistaken_for_it(folders):
    reference, prediction = folders
    save(prediction / "a.png", volume()[2], spacing=(1.0, 1.0))
    assert dice_of(evaluate_folders(reference, prediction, LABELS))["a", "liver"] == pytest.approx(0.75)
    save(reference / "a.mha", volume())
    with pytest.raises(ValueError, match="case a: .*a.mha, .*a.nii.gz"):
        evaluate_folders(reference, prediction, LABELS)


def test_missing_and_extra_predictions_are_named_and_left_out(folders, caplog):
    reference, prediction = folders
    save(prediction / "c.nii.gz", volume())
    (prediction / "notes.txt").write_text("not an image")
    assert {score.case for score in evaluate_folders(reference, prediction, LABELS)} == {"a", "b"}
    (prediction / "b.nii.gz").unlink()
    with pytest.raises(ValueError, match="missing for 1 of 2 reference cases: b;"):
        evaluate_folders(reference, prediction, LABELS)
    assert {score.case for score in evaluate_folders(reference, prediction, LABELS, partial=True)} == {"a"}
    assert "the reference is missing: c" in caplog.text and "the prediction is missing: b" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"array": volume()[:7]}, r"shape \(7, 10, 9\) instead of \(8, 10, 9\)"),
        ({"spacing": (1.0, 1.0, 3.5)}, r"spacing \(3.5, 1.0, 1.0\) instead of \(3.0, 1.0, 1.0\) mm"),
        ({"origin": (5.0, -4.0, 4.0)}, "origin by 2 mm"),
        ({"direction": (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}, "direction by 180 degrees"),
        ({"array": volume() + np.uint8(1)}, ""),
    ],
)
def test_cases_that_do_not_fit_are_named_together(folders, change, message):
    reference, prediction = folders
    save(prediction / "b.nii.gz", **{"array": volume(spleen=False), **change})
    with pytest.raises(ValueError, match=f"(?s)1 of 2 cases.*case b: .*{message}"):
        evaluate_folders(reference, prediction, LABELS)
    (prediction / "a.nii.gz").write_bytes(b"broken")
    with pytest.raises(ValueError, match="(?s)2 of 2 cases.*case a: .*case b: "):
        evaluate_folders(reference, prediction, LABELS)


def test_header_rounding_is_accepted(folders):
    reference, prediction = folders
    save(prediction / "b.nii.gz", volume(spleen=False), spacing=(1.0, 1.0, 3.00001), origin=(5.0, -4.00001, 2.0))
    assert dice_of(evaluate_folders(reference, prediction, LABELS))["b", "liver"] == 1.0


def test_folders_without_anything_to_compare(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "others" / "z.nii.gz", volume())
    for name, message in (("nowhere", "nowhere: .* found nothing"), ("empty", "empty: no"), ("others", "predictions z; references a, b")):
        with pytest.raises(ValueError, match=message):
            evaluate_folders(folders[0], tmp_path / name, LABELS)


def one(case, organ, dice, **other):
    return Score(case, organ, dice, dice, 1, 1, other)


def test_summary_leaves_out_what_has_no_value():
    liver = summary([one("a", "liver", 0.5, x=math.nan), one("b", "liver", math.nan, x=1.0), one("c", "liver", 1.0, x=0.5)])["liver"]
    assert liver == OrganSummary({"dice": 0.75, "iou": 0.75, "x": 0.75}, 0.5, "a", cases=2, absent=1)


def test_organ_that_no_case_has_does_not_spoil_the_mean():
    scores = [one("a", "liver", 0.5), one("a", "spleen", math.nan)]
    assert math.isnan(summary(scores)["spleen"].dice) and math.isnan(mean_dice([]))
    assert mean_dice(scores) == 0.5


def test_table_lines_up():
    lines = table([one("a", "liver", 0.5), one("b", "liver", 1.0), one("a", "left kidney", math.nan)]).splitlines()
    assert lines == [
        "organ             Dice  cases  absent  worst case (Dice)",
        "liver           0.7500      2       0  0.5000 a",
        "left kidney          -      0       1  -",
        "mean of organs  0.7500",
        "absent: cases without the organ in both, left out of the means",
    ]


def test_scores_survive_their_file(folders, tmp_path):
    scores = evaluate_folders(*folders, LABELS)
    write_json(tmp_path / "scores.json", scores)
    assert repr(read_json(tmp_path / "scores.json", list[Score])) == repr(scores)


def write_stack(path: Path, shift: int, spacing: list[float] | None = None) -> Path:
    """A block in a TIFF stack, with or without a file that says its spacing."""
    array = np.zeros((8, 10, 12), np.uint8)
    array[2 + shift : 5 + shift, 2:8, 2:8] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    if spacing:
        path.with_suffix(".json").write_text(json.dumps({"spacing": spacing}))
    return path


def hd(scores: list[Score]) -> float:
    return scores[0].other["hd_surface"]


@pytest.mark.parametrize("known", [(True, True), (True, False), (False, True)])
def test_stacks_without_a_spacing_have_that_of_the_other_side(tmp_path, known):
    reference, prediction = (
        write_stack(tmp_path / side / "a.tif", shift, [4.0, 1.0, 1.0] if one else None)
        for side, shift, one in zip("rp", (0, 1), known, strict=True)
    )
    assert hd(evaluate_folders(reference, prediction, metrics=("hd_surface",))) == pytest.approx(4.0)


def test_stacks_without_any_spacing_have_that_of_the_image_or_no_distances(tmp_path, caplog):
    reference, prediction = write_stack(tmp_path / "r" / "a.tif", 0), write_stack(tmp_path / "p" / "a.tif", 1)
    image = write_stack(tmp_path / "i" / "a_0000.tif", 0, [4.0, 1.0, 1.0])
    cases = {"a": Case("a", (image,))}
    assert hd(evaluate_folders(reference, prediction, metrics=("hd_surface",), cases=cases)) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="hd_surface cannot be computed without the spacing of the voxels, which nobody knows"):
        evaluate_folders(reference, prediction, metrics=("hd_surface",))
    (score,) = evaluate_folders(reference, prediction)
    assert score.dice == pytest.approx(2 / 3)
    assert not {"hd95_surface", "nsd_surface"} & score.other.keys()
    assert "Without distances in mm, as nobody knows the spacing of the pictures: a;" in caplog.text


def test_stacks_with_two_spacings_are_not_compared(tmp_path):
    reference = write_stack(tmp_path / "r" / "a.tif", 0, [4.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"lies elsewhere than the reference: spacing \(2.0, 1.0, 1.0\) instead of \(4.0, 1.0, 1.0\) mm"):
        evaluate_folders(reference, write_stack(tmp_path / "p" / "a.tif", 0, [2.0, 1.0, 1.0]))
