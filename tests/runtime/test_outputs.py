"""What may be written: a command's own files again, files of others only when asked, inputs never."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

from autoseg.runtime import outputs as outputs_module
from autoseg.runtime import serialization
from autoseg.runtime.outputs import NOTES, Outputs, clashes


def outputs(command: str = "autoseg_evaluate", **options: object) -> Outputs:
    return Outputs(command, **{"inputs": (), **options})


def write(path: Path, text: str, writer: Outputs) -> None:
    with writer.write(path) as partial:
        partial.write_text(text)


def refused(path: Path, *reason: str, writer: Outputs | None = None) -> None:
    """Neither the check of all files nor the writing of this one touches what lies there."""
    before = path.read_bytes() if path.is_file() else None
    writer = writer or outputs()
    for attempt in (lambda: writer.check({"file": [path]}), lambda: write(path, "new", writer)):
        with pytest.raises(ValueError, match=path.name) as error:
            attempt()
        assert all(part in str(error.value) for part in reason)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert not list(path.parent.glob(".partial-*"))


def test_a_command_replaces_what_it_wrote(tmp_path: Path) -> None:
    for text in ("one", "two", "one"):
        write(tmp_path / "new/scores.csv", text, outputs())
    assert (tmp_path / "new/scores.csv").read_text() == "one"
    assert {path.name for path in (tmp_path / "new").glob("[!.]*")} == {"scores.csv"}


def test_files_of_others_are_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("mine")
    refused(path, "autoseg_evaluate did not write it", "--overwrite")
    write(path, "new", outputs(overwrite=True))
    assert path.read_text() == "new"
    write(path, "newer", outputs())
    refused(path, "autoseg_report did not write it", writer=outputs("autoseg_report"))


def test_a_file_that_was_changed_since_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "case.nii.gz"
    write(path, "predicted", outputs())
    path.write_text("corrected")
    assert outputs().changed(path)
    refused(path, "was changed after autoseg_evaluate had written it", "--overwrite")
    write(path, "new", outputs(overwrite=True))
    assert not outputs().changed(path)


def test_a_command_that_died_before_the_file_was_there_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "case.nii.gz"
    write(path, "first", outputs())
    replace = os.replace

    def dying(source: Path, target: Path) -> None:
        if target == path:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        write(path, "second", outputs())
    monkeypatch.undo()
    (tmp_path / NOTES / "other.nii.gz.json").write_text("{half of a no")
    assert path.read_text() == "first"
    write(path, "second", outputs())
    assert path.read_text() == "second"
    (tmp_path / "other.nii.gz").write_text("mine")
    refused(tmp_path / "other.nii.gz", "did not write it")


def test_of_two_that_write_one_file_at_once_neither_passes_for_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever notes first may rename last: both contents must be noted."""
    path, both, real = tmp_path / "table.csv", threading.Barrier(2), Outputs._note

    def slowly(writer: Outputs, target: Path, content: str) -> None:
        former = writer._ids(target)
        time.sleep(0.2)
        assert writer._ids(target) == former, "another one notes at the same time"
        real(writer, target, content)
        time.sleep(0.2)

    def run(text: str) -> None:
        both.wait()
        write(path, text, outputs())

    monkeypatch.setattr(Outputs, "_note", slowly)
    monkeypatch.setattr(serialization, "partial_name", lambda name: f".partial-{threading.get_ident()}-{name}")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, ("one", "two!")))
    assert not outputs().changed(path) and not outputs().problem(path)


def test_files_known_by_a_mark_are_replaced_where_the_hidden_notes_were_not_copied(tmp_path: Path) -> None:
    home = tmp_path / "results" / "Dataset001_A"
    home.mkdir(parents=True)
    (home / "dataset.json").touch()
    path, writer = home / "report.html", outputs(is_own=lambda path: path.read_text().startswith("report"))
    path.write_text("mine")
    refused(path, "did not write it", writer=writer)
    path.write_text("report, copied")
    write(path, "report", writer)
    assert path.read_text() == "report"
    path.write_text("report, with remarks")
    refused(path, "was changed after", writer=writer)


def test_a_file_is_read_once_as_long_as_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "case.nii.gz", Mock(side_effect=outputs_module.file_id)
    write(path, "predicted", outputs())
    monkeypatch.setattr(outputs_module, "file_id", read)
    writer = outputs()
    assert [writer.problem(path), writer.changed(path), writer.problem(path)] == ["", False, ""]
    assert read.call_count == 1
    path.write_text("correctec")
    assert writer.changed(path)


def test_the_folder_of_a_dataset_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, listed = tmp_path / "labelsTs", Mock(side_effect=os.scandir)
    folder.mkdir()
    (tmp_path / "dataset.json").touch()
    monkeypatch.setattr(os, "scandir", listed)
    writer = outputs()
    assert not any(writer.problem(folder / f"case_{number}.nii.gz") for number in range(5))
    assert listed.call_count == 1


def test_an_input_is_never_replaced_whatever_it_is_called(tmp_path: Path) -> None:
    scans, series = tmp_path / "scans", tmp_path / "series"
    scans.mkdir()
    series.mkdir()
    scan, aliases = scans / "scan.nii.gz", tmp_path / "aliases"
    scan.write_text("a scan")
    (series / "1.dcm").write_text("a slice")
    aliases.symlink_to(scans)
    (tmp_path / "link.nii.gz").symlink_to(scan)
    os.link(scan, tmp_path / "hard.nii.gz")
    (tmp_path / "gone").symlink_to(tmp_path / "later.nii.gz")
    for overwrite in (False, True):
        writer = outputs(inputs=[tmp_path / "aliases/scan.nii.gz", series, tmp_path / "gone"], overwrite=overwrite)
        names = ("scans/scan.nii.gz", "scans/../scans/scan.nii.gz", "aliases/scan.nii.gz", "link.nii.gz", "hard.nii.gz", "later.nii.gz")
        for name in (*names, "series/1.dcm", "series/new.nii.gz"):
            refused(tmp_path / name, "an input is never replaced", writer=writer)
    assert scan.read_text() == "a scan"


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    (tmp_path / "scores.csv").symlink_to(tmp_path / "mine.csv")
    refused(tmp_path / "scores.csv", "--overwrite")
    write(tmp_path / "scores.csv", "new", outputs(overwrite=True))
    assert ((tmp_path / "mine.csv").read_text(), (tmp_path / "scores.csv").read_text()) == ("mine", "new")


def test_data_and_models_of_the_home_are_never_replaced(tmp_path: Path) -> None:
    plan = tmp_path / "results/Dataset001/plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("{}")
    for overwrite in (False, True):
        writer = outputs(protected=[tmp_path / "results"], overwrite=overwrite)
        refused(plan, "never replaced", writer=writer)
        write(plan.with_name("scores.json"), "mine", writer)
    assert (plan.read_text(), plan.with_name("scores.json").read_text()) == ("{}", "mine")


@pytest.mark.parametrize("with_description", [True, False])
def test_nothing_is_written_among_the_files_of_a_dataset(tmp_path: Path, with_description: bool) -> None:
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
    if with_description:
        (tmp_path / "dataset.json").write_text("{}")
    (tmp_path / "labelsTr/a.nii.gz").write_text("a reference")
    for name in ("a.nii.gz", "b.nii.gz"):
        for overwrite in (False, True):
            refused(tmp_path / "labelsTr" / name, "its folder belongs to a dataset", writer=outputs(overwrite=overwrite))
    write(tmp_path / "labelsTs/a.nii.gz", "one", outputs())
    write(tmp_path / "labelsTs/b.nii.gz", "two", outputs())
    write(tmp_path / "labelsTs/b.nii.gz", "three", outputs())
    found = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.glob("labels*/*.nii.gz")}
    assert found == {"labelsTr/a.nii.gz": "a reference", "labelsTs/a.nii.gz": "one", "labelsTs/b.nii.gz": "three"}


def test_all_files_are_checked_before_the_first_and_named(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.csv").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match="nothing was written") as error:
        outputs().check({"--csv": [tmp_path / "folder.csv", *(tmp_path / f"{number}.csv" for number in range(7))]})
    assert "found a folder" in str(error.value)
    assert "and 3 more" in str(error.value)
    with pytest.raises(ValueError, match=r"--json and --csv would be written to one file"):
        outputs().check({"--json": [tmp_path / "new.csv"], "--csv": [tmp_path / "../" / tmp_path.name / "new.csv"]})


@pytest.mark.parametrize("ignores_case", [True, False])
def test_names_that_a_disk_takes_for_the_same_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignores_case: bool) -> None:
    files = {"Case": [tmp_path / "out/Case.nii.gz"], "case": [tmp_path / "out/case.nii.gz"], "b": [tmp_path / "out/b.nii.gz"]}
    assert clashes(files) == {}
    monkeypatch.setattr(Path, "exists", lambda path: ignores_case)
    assert set(clashes(files)) == ({"Case", "case"} if ignores_case else set())
