"""What users name as input: several paths, patterns, quoted or not, files, folders and DICOM series."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_files import stack, voxels, write_series
from story_data import draw_case

from autoseg.data.given_inputs import Given, find_cases_in, given_inputs
from autoseg.data.images import write_image


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    image, _, geometry = draw_case(0)
    for name in ("p1/T1.nii.gz", "p2/T2.nii.gz", "p10/T10.nii.gz", "p1/T2.nii.gz", "all/a_0000.nii.gz", "all/b.mha"):
        write_image(tmp_path / name, image[None], geometry)
    (tmp_path / "all" / "notes.txt").write_text("no image")
    return tmp_path


def names(given: Given, channels: tuple[str, ...] = ("CT",)) -> list[str]:
    return [case.name for case in find_cases_in(given_inputs(given), channels).cases]


def test_patterns_files_and_folders_mix(scans: Path) -> None:
    assert names(scans / "p*" / "T1*.nii.gz") == ["T1", "T10"]
    assert names(str(scans / "**" / "*.mha")) == ["b"]
    assert names([scans / "all", str(scans / "p1" / "*")]) == ["a", "b", "T1", "T2"]
    assert names([scans / "all", scans / "all" / "b.mha", scans / "all"]) == ["a", "b"], "each once"
    (scans / "all" / "[x].mha").write_bytes((scans / "all" / "b.mha").read_bytes())
    assert names(scans / "all" / "[x].mha") == ["[x]"], "a file of that name goes before a pattern"


def test_what_is_no_image_is_skipped_among_several_and_refused_alone(scans: Path) -> None:
    found = find_cases_in(given_inputs(sorted((scans / "all").iterdir())), ("CT",))
    assert [case.name for case in found.cases] == ["a", "b"]
    assert found.skipped == {str(scans / "all" / "notes.txt"): "not an image file that can be read"}
    for given, message in (
        (scans / "all" / "notes.txt", "not an image file"),
        (scans / "*.nrrd", "no file or folder matches"),
        ([scans / "all", scans / "none"], "no such file or folder"),
        ([], "got none"),
        ([scans / "all" / "notes.txt"] * 2, "not an image file"),
    ):
        with pytest.raises(ValueError, match=message):
            find_cases_in(given_inputs(given), ("CT",))


def test_two_cases_of_one_name_are_refused_by_naming_both(scans: Path) -> None:
    with pytest.raises(ValueError, match=r"called T2.*p1/T2\.nii\.gz and .*p2/T2\.nii\.gz"):
        names(scans / "p*" / "T2.nii.gz")


def test_channels_of_one_case_are_one_case(scans: Path) -> None:
    image, _, geometry = draw_case(0)
    write_image(scans / "all" / "a_0001.nii.gz", image[None], geometry)
    assert names(scans / "all" / "a_*.nii.gz", ("T1", "T2")) == ["a"]


def test_slices_of_a_series_are_the_series(tmp_path: Path) -> None:
    write_series(tmp_path / "series", voxels(), stack())
    assert names(sorted((tmp_path / "series").iterdir())) == ["series"]
    assert names(tmp_path / "s*" / "*") == ["series"]
