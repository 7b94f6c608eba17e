"""Cases of DICOM folders: every series is a case, skipped with a reason, or failed with one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import SECONDARY_CAPTURE, dataset, item, save, stack, voxels, write_enhanced, write_series, write_slice
from factories import write_info

from autoseg import cli
from autoseg.data import dicom_search
from autoseg.data.datasets import find_new_cases, load_dataset
from autoseg.data.found_cases import FoundCases
from autoseg.data.images import read_geometry, read_image, write_label
from autoseg.planners.fingerprint import measure_dataset
from autoseg.runtime.provenance import content_id, files_of

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"


def find(folder: Path) -> FoundCases:
    return find_new_cases(folder, ("CT",))


def names(folder: Path) -> list[str]:
    found = find(folder)
    assert not found.failed
    return [case.name for case in found.cases]


def check_voxels(found: FoundCases, expected: dict[str, np.ndarray]) -> None:
    assert [case.name for case in found.cases] == list(expected)
    for case in found.cases:
        np.testing.assert_array_equal(read_image(case.images).array[0], expected[case.name])


def test_every_series_of_a_folder_is_a_case_with_files_of_its_own(tmp_path):
    folder = tmp_path / "study"
    write_series(folder, voxels(), stack(), SeriesNumber=3, SeriesDescription="Abdomen 2.5/B")
    write_series(folder, voxels(8, 1), stack(8), name="t", SeriesInstanceUID="1.2.3.77", SeriesNumber=4)
    found = find(folder)
    check_voxels(found, {"study_3_Abdomen_2.5_B": voxels(), "study_4": voxels(8, 1)})
    first, second = (case.images[0] for case in found.cases)
    assert [file.name for file in files_of(first)] == [f"s{k:03d}.dcm" for k in range(1, 7)]
    ids = content_id(first), content_id(second)
    write_slice(folder / "t008.dcm", voxels()[0], stack(8)[0], SeriesInstanceUID="1.2.3.77", SeriesNumber=4)
    assert content_id(first) == ids[0]
    assert content_id(second) != ids[1]
    with pytest.raises(ValueError, match=r"one DICOM image series, found 2: .*Abdomen.*6 slices; .*8 slices"):
        read_image([folder])


def test_nested_folders_and_a_disc(tmp_path):
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    for patient in ("A", "B"):
        for k, series in enumerate(("S1", "S2")):
            write_series(
                tmp_path / patient / "study" / series, voxels(4, k), stack(4), SeriesInstanceUID=f"{patient}{k}", PatientID=patient
            )
    write_series(tmp_path / "C" / "T2", voxels(), stack(), SeriesInstanceUID="7")
    assert names(tmp_path) == ["A_study_S1", "A_study_S2", "B_study_S1", "B_study_S2", "T2"]
    assert names(tmp_path / "A") == ["S1", "S2"]


@pytest.mark.parametrize("folder", ["a", "."])
def test_what_is_no_image_is_skipped_with_its_reason(tmp_path, folder):
    write_series(tmp_path / folder, voxels(), stack(), SeriesInstanceUID="1.2.3.1")
    inside = tmp_path / folder
    write_series(inside, voxels(2, 1), stack(2), name="loc", SeriesInstanceUID="8", ImageType=["ORIGINAL\\PRIMARY\\LOCALIZER"] * 2)
    structures = dataset(voxels()[0], SOPClassUID=RTSTRUCT, SeriesInstanceUID="9", Rows=None, Columns=None)
    del structures.PixelData
    save(inside / "rs.dcm", structures)
    save(inside / "screen.dcm", dataset(voxels(1).astype(np.uint8)[0], SOPClassUID=SECONDARY_CAPTURE, SeriesInstanceUID="10"))
    sagittal = (0, 1, 0, 0, 0, -1)
    write_slice(inside / "z.dcm", voxels()[0], (90, 0, 60), ImageOrientationPatient=sagittal)
    shutil.copyfile(inside / "s001.dcm", inside / "s001 (copy).dcm")
    found = find(tmp_path)
    assert not found.failed
    assert len(found.cases) == 1
    np.testing.assert_array_equal(read_image(found.cases[0].images).array[0], voxels())
    said = "\n".join(f"{Path(item).name}: {reason}" for item, reason in found.skipped.items())
    for line in (
        "loc001.dcm and 1 more of its series: a localizer",
        "rs.dcm: RT Structure Set Storage, no image",
        "screen.dcm: a secondary",
    ):
        assert line in said
    assert "z.dcm: 5 x 6 voxels" in said
    assert "a copy of" in said


class TestDamage:
    @pytest.mark.parametrize("keep", [0, 100, 140, 200, 300, 350, 420, -30])
    @pytest.mark.parametrize("slice_", ["s001.dcm", "s003.dcm"])
    def test_a_slice_that_is_cut_short_ends_its_case_only(self, tmp_path, keep, slice_):
        for name in ("a", "b"):
            write_series(tmp_path / name, voxels(), stack(), SeriesInstanceUID=name)
        file = tmp_path / "b" / slice_
        file.write_bytes(file.read_bytes()[:keep])
        found = find(tmp_path)
        assert [case.name for case in found.cases] == ["a"]
        assert list(found.failed) == ["b"]
        assert str(file) in found.failed["b"]

    def test_without_ending_it_is_known_by_its_name(self, tmp_path):
        for k in range(6):
            write_slice(tmp_path / f"IM{k:04d}", voxels()[k], stack()[k])
        (tmp_path / "README").write_bytes(b"x" * 500)
        assert names(tmp_path)
        (tmp_path / "IM0005").write_bytes(bytes(500))
        assert "named like the slices beside it" in next(iter(find(tmp_path).failed.values()))

    def test_an_end_slice_unlike_the_others_is_not_left_out(self, tmp_path):
        write_series(tmp_path, voxels(5), stack(5))
        write_slice(tmp_path / "x.dcm", voxels()[5][:4], stack()[5])
        assert "lies where the next slice of the others belongs" in next(iter(find(tmp_path).failed.values()))

    @pytest.mark.parametrize("number", [1, 3, 6])
    @pytest.mark.parametrize("lacking", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
    def test_a_slice_without_a_place_ends_its_case(self, tmp_path, lacking, number):
        files = write_series(tmp_path / "a", voxels(), stack(), SeriesNumber=4)
        write_series(tmp_path / "b", voxels(), stack(), SeriesInstanceUID="2")
        write_slice(files[number - 1], voxels()[number - 1], stack()[number - 1], SeriesNumber=4, **{lacking: None})
        found = find(tmp_path)
        assert [case.name for case in found.cases] == ["b"]
        assert f"{files[number - 1].name}: expected {lacking} as in the 5 other slices" in found.failed["a"]
        assert "(series 4 1.2.3.1)" in found.failed["a"]

    def test_several_slices_without_a_place_are_no_volume_beside_the_others(self, tmp_path):
        write_series(tmp_path / "a", voxels(4), stack(4))
        write_series(tmp_path / "a", voxels(2), stack(2), name="t", ImagePositionPatient=None)
        found = find(tmp_path)
        assert not found.cases
        assert "(and 1 more of its slices)" in found.failed["a"]

    @pytest.mark.parametrize("key", ["RescaleSlope", "RescaleIntercept", "SliceThickness", "ImagePositionPatient"])
    def test_a_value_that_is_no_number_is_named_with_its_file(self, tmp_path, key):
        digits = "1.2345678"
        value = [digits, "0", "0"] if key == "ImagePositionPatient" else digits
        files = write_series(tmp_path / "a", voxels(), stack(), **{key: [value, *[None] * 5]})
        content = files[0].read_bytes()
        assert content.count(digits.encode()) == 1
        files[0].write_bytes(content.replace(digits.encode(), b"abc      "[: len(digits)]))
        reason = find(tmp_path).failed["a"]
        assert str(files[0]) in reason
        assert f"expected {key} to be" in reason
        assert "'abc'" in reason

    def test_two_series_of_one_folder_are_told_apart_in_messages(self, tmp_path):
        for name in ("s", "t"):
            files = write_series(tmp_path / "a", voxels(), stack(), name=name, SeriesInstanceUID=f"1.{ord(name)}", PatientID=name)
            files[2].unlink()
        reasons = find(tmp_path).failed
        assert {name: reason.rpartition(" (series ")[2] for name, reason in reasons.items()} == {"a_s_115": "1.115)", "a_t_116": "1.116)"}

    def test_it_does_not_hide_other_images(self, tmp_path):
        sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(tmp_path / "scan.nii.gz"))
        write_slice(tmp_path / "stray.dcm", voxels()[0], stack()[0])
        assert sorted(names(tmp_path)) == sorted(["scan", tmp_path.name])
        (tmp_path / "stray.dcm").write_bytes(b"anything")
        found = find(tmp_path)
        assert [case.name for case in found.cases] == ["scan"]
        assert list(found.failed) == ["stray"]


class TestSeveralVolumes:
    @pytest.mark.parametrize(
        ("tags", "parts"),
        [
            ({"EchoTime": (4.6, 9.2)}, ("TE4-6", "TE9-2")),
            ({"TemporalPositionIdentifier": (1, 2)}, ("time1", "time2")),
            ({"DiffusionBValue": (0.0, 1000.0)}, ("b0", "b1000")),
            ({"AcquisitionNumber": (1, 2)}, ("acquisition1", "acquisition2")),
            ({"ImageType": ("DERIVED\\PRIMARY\\W", "ORIGINAL\\PRIMARY\\F")}, ("type1", "type2")),
        ],
    )
    def test_a_series_is_divided_by_its_headers(self, tmp_path, tags, parts):
        for k in (0, 1):
            write_series(tmp_path / "d", voxels(6, k), stack(), name=f"{k}_", **{key: values[k] for key, values in tags.items()})
        check_voxels(find(tmp_path), {f"d_{part}": voxels(6, k) for k, part in enumerate(parts)})

    def test_two_things_at_once(self, tmp_path):
        for k in range(4):
            write_series(tmp_path / "d", voxels(6, k), stack(), name=f"{k}_", EchoTime=k % 2 + 1, TemporalPositionIdentifier=k // 2)
        check_voxels(find(tmp_path), {f"d_time{k // 2}-TE{k % 2 + 1}": voxels(6, k) for k in range(4)})

    def test_frames_of_an_enhanced_file(self, tmp_path):
        order = np.random.default_rng(0).permutation(12)
        both = np.concatenate([voxels(6, 0), voxels(6, 1)])[order]
        groups = [{"MRDiffusionSequence": item(DiffusionBValue=float(800 * (k // 6)))} for k in order]
        write_enhanced(tmp_path / "dwi.dcm", both, [stack()[k % 6] for k in order], groups)
        check_voxels(find(tmp_path / "dwi.dcm"), {"dwi_b0": voxels(6, 0), "dwi_b800": voxels(6, 1)})

    def test_what_nothing_tells_apart_is_refused(self, tmp_path):
        for k in (0, 1):
            write_series(tmp_path / "d", voxels(6, k), stack(), name=f"{k}_")
        assert "6 slices at the position of another" in find(tmp_path).failed["d"]

    def test_one_slice_taken_twice_is_refused(self, tmp_path):
        write_series(tmp_path / "d", voxels(), stack(), AcquisitionTime=[f"10{k:02d}00" for k in range(6)])
        write_slice(tmp_path / "d/x.dcm", voxels()[0], stack()[2], AcquisitionTime="120000")
        assert "1 slices at the position of another" in find(tmp_path).failed["d"]


class TestFoldersOfOneSeries:
    def test_its_parts_in_two_folders_are_one_volume(self, tmp_path):
        write_series(tmp_path / "a/DIR1", voxels()[:3], stack()[:3])
        write_series(tmp_path / "a/DIR2", voxels()[3:], stack()[3:])
        check_voxels(find(tmp_path), {"a": voxels()})

    def test_copies_and_cases_with_the_same_identities_are_cases_of_their_own(self, tmp_path):
        write_series(tmp_path / "one", voxels(), stack())
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        write_series(tmp_path / "three", voxels(6, 5), stack(), SOPInstanceUID="1.2.3")
        check_voxels(find(tmp_path), {"one": voxels(), "three": voxels(6, 5), "two": voxels()})


def test_checking_and_measuring_parse_each_slice_once(tmp_path, monkeypatch):
    folder = write_info(tmp_path / "raw" / "Dataset001_A")
    for number in range(10):  # more than the searches that are kept
        name = f"c{number}"
        write_series(folder / "imagesTr" / f"{name}_0000", voxels(2, number), stack(2))
        label = (voxels(2, number) > 3000).astype(np.uint8)
        write_label(folder / "labelsTr" / f"{name}.nii.gz", label, read_geometry(folder / "imagesTr" / f"{name}_0000"))
    shutil.copytree(tmp_path / "raw", tmp_path / "anew" / "raw")  # of which nothing was read
    read, original = [], dicom_search._read_header
    monkeypatch.setattr(dicom_search, "_read_header", lambda path: read.append(path) or original(path))
    assert cli.check(["-d", "1", "--home", str(tmp_path / "anew"), "--workers", "0"]) == 0
    assert len(read) == len(set(read)) == 20
    measure_dataset(load_dataset(tmp_path / "anew/raw/Dataset001_A"), workers=0)
    assert len(read) == 40


def test_two_channels_as_folders(tmp_path):
    for channel in (0, 1):
        write_series(tmp_path / f"p_000{channel}", voxels(6, channel), stack(), SeriesInstanceUID=str(channel))
    found = find_new_cases(tmp_path, ("A", "B"))
    assert [case.name for case in found.cases] == ["p"]
    np.testing.assert_array_equal(read_image(found.cases[0].images).array, [voxels(6, 0), voxels(6, 1)])


def test_files_named_by_their_identity_keep_their_names_apart(tmp_path):
    for last in (573, 574):
        write_slice(tmp_path / f"1.2.300.{last}", voxels()[0], stack()[0], SeriesInstanceUID=str(last))
    assert [names(tmp_path / f"1.2.300.{last}") for last in (573, 574)] == [["1.2.300.573"], ["1.2.300.574"]]


COLOURS = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "Columns": 2, "SeriesInstanceUID": "9.9"}


def test_colours_films_and_mosaics_are_skipped_unless_they_are_all_there_is(tmp_path):
    study = tmp_path / "study"
    write_series(study / "ct", voxels(), stack())
    write_series(study / "fa", voxels(4), stack(4), **COLOURS)
    save(study / "us" / "film.dcm", dataset(voxels(), SeriesInstanceUID="8.8"))
    write_series(study / "mosaic", voxels(1), stack(1), SeriesInstanceUID="7.7", ImageType=("ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"))
    found = find(study)
    check_voxels(found, {"ct": voxels()})
    assert not found.failed
    reasons = " ".join(found.skipped.values())
    for reason in ("colours (RGB)", "6 frames without positions", "a mosaic of slices; convert it with dcm2niix"):
        assert reason in reasons
    with pytest.raises(ValueError, match="found none: .* \\(a mosaic of slices"):
        read_image([study / "mosaic"])
    shutil.rmtree(study / "ct")
    assert set(find(study).failed) == {"fa", "us"}


def test_one_slice_in_colours_ends_its_series(tmp_path):
    files = write_series(tmp_path / "ct", voxels(), stack())
    write_slice(files[2], voxels()[2], stack()[2], **{**COLOURS, "SeriesInstanceUID": "1.2.3.1"})
    assert "colours" in find(tmp_path).failed["ct"]


def test_a_folder_of_many_series_is_read_once_while_nothing_in_it_changes(tmp_path, monkeypatch):
    read, original = [], dicom_search._read_header
    monkeypatch.setattr(dicom_search, "_read_header", lambda path: read.append(path) or original(path))
    for number in range(5):
        write_series(tmp_path, voxels(4, number), stack(4), name=f"s{number}-", SeriesInstanceUID=f"1.2.{number}", SeriesNumber=number)
    found = find(tmp_path)
    for case in found.cases:
        read_geometry(case.images[0])
        read_image(case.images)
        content_id(case.images[0])
    assert len(found.cases) == 5
    assert len(read) == len(set(read)) == 20
    (tmp_path / "s0-001.dcm").unlink()
    assert read_geometry(found.cases[0].images[0]).shape[0] == 3
    found.skipped["a mark of the caller's"] = ""
    assert not find(tmp_path).skipped


def test_the_search_for_names_looks_at_each_series_once(tmp_path, monkeypatch):
    for number in range(6):
        write_series(tmp_path / f"p{number}" / "ct", voxels(1), stack(1), SeriesInstanceUID=f"1.2.{number}")
    asked = []
    plain = dicom_search.Series.__getattribute__
    monkeypatch.setattr(dicom_search.Series, "__getattribute__", lambda one, key: asked.append(key) or plain(one, key))
    found = find(tmp_path)
    assert [case.images[0] for case in found.cases] == [tmp_path / f"p{number}" / "ct" for number in range(6)]
    assert asked.count("folder") <= 8 * 6
