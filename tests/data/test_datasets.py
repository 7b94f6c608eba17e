"""Dataset folders and folders of new images, understood."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from factories import write_info

from autoseg.data import datasets, folder_files
from autoseg.runtime.dataset_folders import find_dataset
from autoseg.schema import Case

DATA = Path(os.environ.get("AUTOSEG_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


def touch(path: Path, array: np.ndarray | None = None, *, vector: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((4, 5) if path.suffix == ".png" else (3, 4, 5), np.uint8) if array is None else array
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


def make(folder: Path, files: list[str], **info) -> Path:
    for file in files:
        touch(folder / file)
    return write_info(folder, **{"labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz", **info})


def tr(*cases: str, channels: int = 1, ending: str = ".nii.gz") -> list[str]:
    images = [f"imagesTr/{case}_{i:04d}{ending}" for case in cases for i in range(channels)]
    return images + [f"labelsTr/{case}{ending}" for case in cases]


class TestLoad:
    def test_plain(self, tmp_path):
        files = [*tr("b", "a", channels=2), "imagesTr/.hidden.nii.gz"]
        folder = make(tmp_path / "Dataset001_A", files, channel_names={"1": "PET", "0": "CT"})
        dataset = datasets.load_dataset(folder)
        assert [case.name for case in dataset.cases] == ["a", "b"]
        assert dataset.channels == ("CT", "PET")
        images = (folder / "imagesTr/a_0000.nii.gz", folder / "imagesTr/a_0001.nii.gz")
        assert dataset.cases[0] == Case("a", images, folder / "labelsTr/a.nii.gz", "a")
        assert (dataset.name, dataset.file_ending) == ("Dataset001_A", ".nii.gz")

    def test_windows_of_organs(self, tmp_path):
        assert datasets.load_dataset(make(tmp_path / "b", tr("x"), windows={"liver": [150, 30]})).windows == {"liver": (150, 30)}
        with pytest.raises(ValueError, match=r"b/dataset.json: windows: organ: expected one of liver, got 'spleen'"):
            datasets.load_dataset(make(tmp_path / "b", [], windows={"spleen": [150, 30]}))

    def test_image_and_label_may_differ_in_format_and_suffix_is_optional(self, tmp_path):
        files = ["imagesTr/a_0000.mha", "labelsTr/a.nii.gz", "imagesTr/b.nrrd", "labelsTr/b.nrrd"]
        dataset = datasets.load_dataset(make(tmp_path / "d", files, file_ending=None, modality={"0": "MRI"}, channel_names=None))
        assert [case.images[0].name for case in dataset.cases] == ["a_0000.mha", "b.nrrd"]
        assert dataset.channels == ("MRI",)

    def test_a_case_name_that_ends_like_a_channel(self, tmp_path):
        files = ["imagesTr/scan_0000.nii.gz", "labelsTr/scan_0000.nii.gz", "imagesTr/hip_2019_0000.nii.gz", "labelsTr/hip_2019.nii.gz"]
        assert [case.name for case in datasets.load_dataset(make(tmp_path / "d", files)).cases] == ["hip_2019", "scan_0000"]

    def test_decathlon(self, tmp_path):
        folder = tmp_path / "Task04_H"
        training = [{"image": "./imagesTr/h_2.nii.gz", "label": "./labelsTr/h_2.nii.gz"}]
        touch(folder / "imagesTr/h_2.nii.gz", np.zeros((2, 3, 4, 5), np.float32))
        make(folder, ["labelsTr/h_2.nii.gz"], labels={"0": "background", "1": "A"}, training=training, channel_names={"0": "T1", "1": "T2"})
        dataset = datasets.load_dataset(folder)
        assert [(case.name, len(case.images)) for case in dataset.cases] == [("h_2", 1)]
        assert dataset.labels.names == ("A",)

    def test_explicit_files(self, tmp_path, monkeypatch):
        monkeypatch.setenv("ELSEWHERE", str(tmp_path / "pool"))
        image, label = touch(tmp_path / "pool/x.nii.gz"), touch(tmp_path / "d/deep/y.nii.gz")
        for images in (["$ELSEWHERE/x.nii.gz"], "$ELSEWHERE/x.nii.gz"):
            folder = make(tmp_path / "d", [], dataset={"case1": {"images": images, "label": "deep/y.nii.gz"}})
            dataset = datasets.load_dataset(folder, allow_external=[tmp_path / "pool"])
            assert (dataset.cases[0].images, dataset.cases[0].label) == ((image,), label)

    def test_one_colour_picture_holds_three_channels(self, tmp_path):
        touch(tmp_path / "d/imagesTr/a_0000.png", np.zeros((4, 5, 3), np.uint8), vector=True)
        folder = make(tmp_path / "d", ["labelsTr/a.png"], channel_names=["R", "G", "B"], file_ending=".png")
        assert len(datasets.load_dataset(folder).cases[0].images) == 1

    def test_every_missing_file_is_named(self, tmp_path):
        files = [*tr("a", channels=2), "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz", "imagesTr/c_0000.nii.gz", "imagesTr/c_0001.nii.gz"]
        folder = make(tmp_path / "d", files, channel_names={"0": "CT", "1": "PET"})
        said = r"case b: missing channel 1 \(PET\), expected .*b_0001\.nii\.gz.*case c: missing label, expected .*c\.nii\.gz"
        with pytest.raises(ValueError, match=said):
            datasets.load_dataset(folder)
        dataset, missing = datasets.inspect_dataset(folder)
        assert [case.name for case in dataset.cases] == ["a"]
        assert [gap.case for gap in missing] == ["b", "c"]

    @pytest.mark.parametrize(
        ("info", "said"),
        [
            ({"channel_names": None}, "channel_names"),
            ({"channel_names": {"CT": "0"}}, "expected channel_names as .*turn them round"),
            ({"channel_names": {"CT": 0, "PET": 1}}, "expected channel_names as .*turn them round"),
            ({"channel_names": {"a": "CT"}}, "expected channel_names such as"),
            ({"channel_names": {"0": "CT", "2": "PET"}}, "channel_names"),
            ({"labels": {"background": 0}}, "at least one organ"),
            ({"dataset": {"x": {"images": []}}}, "'images'"),
            ({}, "no cases|training cases"),
        ],
    )
    def test_wrong_descriptions(self, tmp_path, info, said):
        with pytest.raises(ValueError, match=said):
            datasets.load_dataset(make(tmp_path / "d", [], **info))

    def test_missing_or_broken_json(self, tmp_path):
        with pytest.raises(ValueError, match="dataset.json"):
            datasets.load_dataset(tmp_path)
        (tmp_path / "dataset.json").write_text("{")
        with pytest.raises(ValueError, match="JSON"):
            datasets.load_dataset(tmp_path)

    def test_two_files_for_one_thing(self, tmp_path):
        with pytest.raises(ValueError, match="one label map"):
            datasets.load_dataset(make(tmp_path / "d", [*tr("a"), "labelsTr/a.mha"]))
        with pytest.raises(ValueError, match="one file a channel"):
            datasets.load_dataset(make(tmp_path / "e", [*tr("a"), "imagesTr/a.mha"]))

    def test_files_that_belong_together_nowhere_are_listed_in_one_pass(self, tmp_path, monkeypatch):
        for number in range(40):
            for file in (f"imagesTr/{number}_image.nii.gz", f"labelsTr/{number}_label.mha"):
                (tmp_path / file).parent.mkdir(exist_ok=True)
                (tmp_path / file).touch()
        write_info(tmp_path)
        asked, ending_of = [], datasets.ending_of
        monkeypatch.setattr(folder_files, "ending_of", lambda path: asked.append(path) or ending_of(path))
        _, missing = datasets.inspect_dataset(tmp_path)
        assert {gap.file.name for gap in missing} >= {"3_image.mha", "3_label_0000.nii.gz"}
        assert len(asked) < 10 * 80


class TestGroups:
    CASES = ("p1_x", "p1_y", "p2_x")

    @pytest.mark.parametrize(
        ("entry", "pattern", "expected"),
        [
            ({"p1_x": "other"}, r"p\d+", ["p1", "p1", "p2"]),
            ({"p1_x": "other"}, r"(p\d+)_", ["p1", "p1", "p2"]),
            (r"p\d", None, ["p1", "p1", "p2"]),
            ({"p1_x": "A", "p1_y": "A", "p2_x": "B"}, None, ["A", "A", "B"]),
        ],
    )
    def test_by_pattern_or_entry(self, tmp_path, entry, pattern, expected):
        folder = make(tmp_path / "d", tr(*self.CASES), groups=entry)
        assert [case.group for case in datasets.load_dataset(folder, groups=pattern).cases] == expected

    @pytest.mark.parametrize(("groups", "said"), [("q", "p1_x"), ("(", "regular expression")])
    def test_what_does_not_fit(self, tmp_path, groups, said):
        with pytest.raises(ValueError, match=said):
            datasets.load_dataset(make(tmp_path / "d", tr(*self.CASES)), groups=groups)


class TestNewCases:
    def test_a_folder(self, tmp_path):
        (tmp_path / "notes.txt").write_text("x")
        for name in ("c10_0000.nii.gz", "c2.mha"):
            touch(tmp_path / name)
        cases = datasets.find_new_cases(tmp_path, ("CT",)).cases
        assert [(case.name, case.images[0].name) for case in cases] == [("c2", "c2.mha"), ("c10", "c10_0000.nii.gz")]

    def test_two_channels(self, tmp_path):
        for i in (0, 1):
            touch(tmp_path / f"a_000{i}.nii.gz")
        assert [path.name for path in datasets.find_new_cases(tmp_path, ("A", "B")).cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
        assert len(datasets.find_new_cases(tmp_path / "a_0001.nii.gz", ("A", "B")).cases[0].images) == 2
        touch(tmp_path / "b_0000.nii.gz")
        failed = datasets.find_new_cases(tmp_path, ("A", "B")).failed
        assert re.match(r"case b: missing channel 1 \(B\), expected .*b_0001\.nii\.gz, found b_0000\.nii\.gz", failed["b"])

    def test_one_file_of_several_channels_looks_into_no_folder_of_another_name(self, tmp_path, monkeypatch):
        for i in (0, 1):
            touch(tmp_path / f"a_000{i}.nii.gz")
        (tmp_path / "archive").mkdir()
        monkeypatch.setattr(folder_files, "is_dicom_folder", lambda path: pytest.fail(f"{path} is searched"))
        assert len(datasets.find_new_cases(tmp_path / "a_0001.nii.gz", ("A", "B")).cases[0].images) == 2

    @pytest.mark.parametrize(("file", "name"), [("a_0000.nii.gz", "a"), ("b.v1.nii", "b.v1")])
    def test_one_file(self, tmp_path, file, name):
        for other in (file, "b.nii.gz"):
            (tmp_path / other).write_bytes(b"anything")
        cases = datasets.find_new_cases(tmp_path / file, ("CT",)).cases
        assert [(case.name, case.images) for case in cases] == [(name, (tmp_path / file,))]

    def test_names_must_be_unique(self, tmp_path):
        for name in ("a.nii.gz", "a_0000.nii.gz"):
            touch(tmp_path / name)
        assert "one file a channel" in datasets.find_new_cases(tmp_path, ("CT",)).failed["a"]

    @pytest.mark.parametrize("name", ["none", "empty", "file.txt"])
    def test_nothing_there(self, tmp_path, name):
        (tmp_path / "empty").mkdir()
        (tmp_path / "file.txt").write_text("x")
        with pytest.raises(ValueError, match=name):
            datasets.find_new_cases(tmp_path / name, ("CT",))

    @pytest.mark.skipif(not (DATA / "ct_one_case").is_dir(), reason=f"no real data in {DATA}")
    def test_dicom(self):
        series = DATA / "ct_one_case/dicom_series"
        assert [(case.name, case.images) for case in datasets.find_new_cases(series, ("CT",)).cases] == [("dicom_series", (series,))]
        assert "dicom_series" in [case.name for case in datasets.find_new_cases(series.parent, ("CT",)).cases]


@pytest.mark.parametrize(
    ("said", "written"), [("nii.gz", ".nii.gz"), (".MHD", ".mha"), (".jpg", ".png"), (".dcm", ".nii.gz"), (".NRRD", ".nrrd")]
)
def test_ending_of_label_maps_can_be_written(tmp_path, said, written):
    assert datasets.load_dataset(make(tmp_path / "d", tr("a"), file_ending=said)).file_ending == written


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data in {DATA}")
@pytest.mark.parametrize(("which", "cases", "patients", "organs"), [(4, 208, 208, 2), ("ACDC", 120, 60, 3)])
def test_real_datasets(which, cases, patients, organs):
    dataset = datasets.load_dataset(find_dataset(DATA, which))
    assert (len(dataset.cases), len({case.group for case in dataset.cases}), len(dataset.labels.names)) == (cases, patients, organs)


def test_images_of_formats_that_are_not_read_are_skipped_with_their_reason(tmp_path):
    for name in ("b.nhdr", "c.hdr", ".d.nhdr"):
        (tmp_path / name).write_bytes(b"NRRD0004")
    with pytest.raises(ValueError, match=r"found none: .*b\.nhdr: images of this format are not read; .*c\.hdr"):
        datasets.find_new_cases(tmp_path, ("CT",))
    touch(tmp_path / "a.nii.gz")
    found = datasets.find_new_cases(tmp_path, ("CT",))
    assert [case.name for case in found.cases] == ["a"]
    assert [Path(item).name for item in found.skipped] == ["b.nhdr", "c.hdr"]
