"""Files that ``dataset.json`` names outside of its folder are read only with leave, which the home remembers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from factories import make_plan
from test_datasets import make, touch, tr

from autoseg import cli
from autoseg.data import external_files
from autoseg.data.datasets import find_new_cases, load_dataset
from autoseg.data.descriptions import (
    check_files,
    planned_dataset,
    raw_dataset,
    reading_permission,
    with_references,
    write_planned_dataset,
)
from autoseg.data.external_files import ALLOWED, allowed_folders, external_folders, remember_external
from autoseg.pipeline import merge, write_report
from autoseg.runtime.provenance import content_id, files_of
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace

NAME = "Dataset001_A"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOL", str(tmp_path / "pool"))
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path / "pool/x.nii.gz")
    touch(tmp_path / "home/raw/x.nii.gz")
    make(tmp_path / "home/raw" / NAME, tr("a"))
    return tmp_path / "home"


def listing(home: Path, image: str, label: str = "labelsTr/a.nii.gz") -> Path:
    return make(home / "raw" / NAME, [], dataset={"case": {"images": [image], "label": label}})


class TestLeave:
    @pytest.mark.parametrize("path", ["../x.nii.gz", "imagesTr/../../x.nii.gz", "{}/pool/x.nii.gz", "$POOL/x.nii.gz", "~/pool/x.nii.gz"])
    @pytest.mark.parametrize("is_label", [False, True])
    def test_a_path_that_leaves_the_folder_needs_it(self, home: Path, path: str, is_label: bool) -> None:
        path = path.format(home.parent)
        folder = listing(home, *(("imagesTr/a_0000.nii.gz", path) if is_label else (path,)))
        with pytest.raises(
            ValueError, match=r"dataset\.json: case case: expected files inside of the dataset's folder, .*--allow-external"
        ):
            load_dataset(folder)
        dataset = load_dataset(folder, allow_external=True)
        assert load_dataset(folder, allow_external=external_folders(dataset)) == dataset

    def test_the_decathlons_list_needs_it_too(self, home):
        folder = make(home / "raw" / NAME, [], training=[{"image": "../x.nii.gz", "label": "labelsTr/a.nii.gz"}])
        with pytest.raises(ValueError, match="--allow-external"):
            load_dataset(folder)

    @pytest.mark.parametrize(
        "path", ["imagesTr/a_0000.nii.gz", "./imagesTr/../imagesTr/a_0000.nii.gz", "{}/home/raw/Dataset001_A/imagesTr/a_0000.nii.gz"]
    )
    def test_a_path_that_stays_inside_does_not(self, home: Path, path: str) -> None:
        assert load_dataset(listing(home, path.format(home.parent))).cases[0].images[0].is_file()

    def test_links_inside_are_followed_but_not_dots_behind_them(self, home):
        folder = home / "raw" / NAME
        (folder / "pool").symlink_to(home.parent / "pool")
        assert load_dataset(listing(home, "pool/x.nii.gz")).cases[0].images[0].is_file()
        touch(home.parent / "y.nii.gz")
        with pytest.raises(ValueError, match="--allow-external"):
            load_dataset(listing(home, "pool/../y.nii.gz"))


def detached(header: Path, voxels: Path, named: str) -> Path:
    """Writes an image whose header names that file for its voxels, which `voxels` is."""
    head = "ObjectType = Image\nNDims = 3\nElementSpacing = 1 1 1\nDimSize = 5 4 3\nElementType = MET_UCHAR\nElementDataFile = {}\n"
    if header.suffix == ".nrrd":
        head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nspacings: 1 1 1\nendian: little\ndata file: {}\n"
    header.parent.mkdir(parents=True, exist_ok=True)
    voxels.parent.mkdir(parents=True, exist_ok=True)
    header.write_text(head.format(named))
    voxels.write_bytes(bytes(range(60)))
    return header


class TestDataFilesOfHeaders:
    """`ElementDataFile` of MetaImage and `data file` of NRRD are paths that a file brings, as those of dataset.json."""

    @pytest.mark.parametrize("ending", [".mhd", ".mha", ".nrrd"])
    @pytest.mark.parametrize("named", ["../../x.raw", "{}/home/raw/x.raw"])
    @pytest.mark.parametrize("is_label", [False, True])
    def test_those_that_leave_the_dataset_need_leave(self, home: Path, ending: str, named: str, is_label: bool) -> None:
        folder, workspace = home / "raw" / NAME, Workspace(home)
        header = folder / (f"labelsTr/b{ending}" if is_label else f"imagesTr/b_0000{ending}")
        touch(folder / ("imagesTr/b_0000.nii.gz" if is_label else "labelsTr/b.nii.gz"))
        detached(header, home / "raw/x.raw", named.format(home.parent))
        for read in (lambda: load_dataset(folder), lambda: raw_dataset(workspace, 1)):
            with pytest.raises(
                ValueError, match=rf"b.*\{ending}: case b: expected files inside of the dataset's folder, .*--allow-external"
            ):
                read()
        write_planned_dataset(workspace, dataset := raw_dataset(workspace, 1, allow_external=True))
        assert raw_dataset(workspace, 1) == dataset
        check_files(planned_dataset(workspace, 1), home)
        (home / ALLOWED).unlink()
        with pytest.raises(ValueError, match="--allow-external"):
            check_files(planned_dataset(workspace, 1), home)

    @pytest.mark.parametrize("named", ["b.raw", "../voxels/b.raw"])
    def test_those_inside_do_not(self, home, named):
        folder = home / "raw" / NAME
        touch(folder / "labelsTr/b.nii.gz")
        header = detached(folder / "imagesTr/b_0000.mhd", folder / "imagesTr" / named, named)
        assert len(load_dataset(folder).cases) == 2
        assert folder / "imagesTr" / named in files_of(header)
        before = content_id(header)
        (folder / "imagesTr" / named).write_bytes(bytes(60))
        assert content_id(header) != before

    @pytest.mark.parametrize("ending", [".mhd", ".nrrd"])
    def test_new_images_have_theirs_beside_them(self, home, ending):
        new = home.parent / "new"
        touch(new / "sound.nii.gz")
        detached(new / f"inside{ending}", new / "voxels/inside.raw", "voxels/inside.raw")
        detached(new / f"outside{ending}", home.parent / "x.raw", "../x.raw")
        found = find_new_cases(new, ("CT",))
        assert [case.name for case in found.cases] == ["inside", "sound"]
        assert f"outside{ending}: expected the voxels beside their header" in found.failed["outside"]
        assert list(find_new_cases(new / f"outside{ending}", ("CT",)).failed) == ["outside"]


class TestMemory:
    def test_the_home_remembers_it_for_these_folders(self, home):
        workspace = Workspace(home)
        listing(home, "../x.nii.gz")
        raw_dataset(workspace, 1, allow_external=True)
        assert raw_dataset(workspace, 1).cases[0].name == "case"
        assert not (home / "raw" / NAME / ALLOWED).exists()
        listing(home, "$POOL/x.nii.gz")
        with pytest.raises(ValueError, match="--allow-external"):
            raw_dataset(workspace, 1)
        reading_permission(workspace, home / "raw" / NAME, allow_external=True)
        assert raw_dataset(workspace, 1).cases[0].name == "case"

    def test_a_home_that_was_moved_remembers(self, home):
        listing(home, "../x.nii.gz")
        raw_dataset(Workspace(home), 1, allow_external=True)
        moved = home.rename(home.with_name("moved"))
        assert raw_dataset(Workspace(moved), 1).cases[0].name == "case"

    def test_what_a_planned_description_names_is_read_with_the_same_leave(self, home):
        workspace = Workspace(home)
        listing(home, "../x.nii.gz")
        write_planned_dataset(workspace, raw_dataset(workspace, 1, allow_external=True))
        check_files(planned_dataset(workspace, 1), home)
        (home / ALLOWED).unlink()
        with pytest.raises(ValueError, match="--allow-external"):
            check_files(planned_dataset(workspace, 1), home)

    def test_models_are_judged_by_and_reports_show_planned_files_with_the_same_leave(self, home):
        workspace = Workspace(home)
        listing(home, "imagesTr/a_0000.nii.gz", "../x.nii.gz")
        write_planned_dataset(workspace, raw_dataset(workspace, 1, allow_external=True))
        write_json(home / "preprocessed" / NAME / "plan.json", make_plan())
        dataset = planned_dataset(workspace, 1)
        assert with_references(dataset, home) == dataset
        (home / ALLOWED).unlink()
        with pytest.raises(ValueError, match="--allow-external"):
            with_references(dataset, home)
        with pytest.raises(ValueError, match="--allow-external"):
            write_report(1, home=home)
        assert write_report(1, home=home, cases=0).is_file(), "nothing of the cases is read"

    def test_merging_notes_it_for_the_new_dataset(self, home):
        make(home / "raw/Dataset002_B", tr("b"), labels={"background": 0, "spleen": 1})
        folder, _ = merge([1, 2], 3, home=home)
        assert len(raw_dataset(Workspace(home), 3).cases) == 2
        with pytest.raises(ValueError, match="--allow-external"):
            load_dataset(folder)

    def test_checking_asks_for_it(self, home: Path, capsys: Any) -> None:
        listing(home, "../x.nii.gz")
        check = ["-d", "1", "--home", str(home)]
        assert cli.check(check) == 2
        assert "--allow-external" in capsys.readouterr().err
        assert cli.check([*check, "--allow-external"]) == 1, "the label map is empty"
        assert cli.check(check) == 1

    def test_two_commands_that_note_it_at_once_lose_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = external_files._read

        def slowly(home: Path) -> dict[str, list[str]]:
            found = real(home)
            time.sleep(0.3)
            return found

        monkeypatch.setattr(external_files, "_read", slowly)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: remember_external(tmp_path, tmp_path / "raw" / name, [tmp_path.parent / name]), "AB"))
        assert [allowed_folders(tmp_path, tmp_path / "raw" / name) for name in "AB"] == [(tmp_path.parent / name,) for name in "AB"]
        assert [path.name for path in tmp_path.iterdir()] == [ALLOWED]
