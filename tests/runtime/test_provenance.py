"""Content ids and stamps: what counts as the same content, and when an artefact is current."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from autoseg.runtime.migrate.artefacts import models_unknown_to_0_1_0, state_of_0_1_0_fits
from autoseg.runtime.provenance import (
    Stamp,
    case_ids,
    content_id,
    content_ids,
    file_id,
    files_of,
    forget,
    is_current,
    label_id,
    record,
    record_id,
    recorded_ids,
    same_content,
    size_in,
    value_id,
)
from autoseg.schema import Case, Choice


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_known_by_its_bytes_and_their_number(tmp_path: Path) -> None:
    one = write(tmp_path / "one.nii", b"voxels" * 10**6)
    identity = file_id(one)
    assert identity == f"{hashlib.sha256(one.read_bytes()).hexdigest()}:6000000"
    assert size_in(identity) == 6_000_000
    copy = Path(shutil.copy(one, tmp_path / "other name.nii"))
    os.utime(copy, ns=(1, 1))
    assert content_id(copy) == identity
    write(copy, b"VOXELS" * 10**6)
    assert content_id(copy) != identity, "of the same size"


def test_a_series_is_known_by_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    series = tmp_path / "series"
    for number in range(3):
        write(series / f"{number}.dcm", b"slice %d" % number)
    identity = content_id(series)
    assert size_in(identity) == 3 * len("slice 0")
    write(series / ".DS_Store", b"of a file manager")
    assert content_id(shutil.copytree(series, tmp_path / "moved")) == identity
    write(series / "1.dcm", b"SLICE 1")
    assert content_id(series) != identity
    only = write(tmp_path / "single" / "0.dcm", b"slice 0")
    assert content_id(only.parent) != content_id(only), "a folder is no file"


def test_a_header_is_known_with_its_voxels(tmp_path: Path) -> None:
    header = write(tmp_path / "a.mhd", b"ElementDataFile = a.raw")
    voxels = write(tmp_path / "a.raw", b"1234")
    identity = content_id(header)
    write(voxels, b"4321")
    assert content_id(header) != identity


def test_a_header_is_known_with_the_voxels_that_it_names_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = write(tmp_path / "a.mhd", b"ElementDataFile = voxels.raw")
    voxels = write(tmp_path / "voxels.raw", b"1234")
    monkeypatch.setattr(Path, "iterdir", None)  # of many cases in one folder, the folder is not listed for each
    assert files_of(header) == [header, voxels]
    identity = content_id(header)
    write(voxels, b"4321")
    assert content_id(header) != identity


@pytest.mark.parametrize("name", ["a_0000.tif", "a.png"])
def test_a_picture_is_known_with_the_spacing_beside_it(tmp_path: Path, name: str) -> None:
    picture = write(tmp_path / name, b"picture")
    assert content_id(picture) == file_id(picture)
    sidecar = write(tmp_path / "a.json", b'{"spacing": [3, 1, 1]}')
    identity = content_id(picture)
    assert identity != file_id(picture) and size_in(identity) == len(b"picture")
    write(sidecar, b'{"spacing":[3,1,1], "by": "me"}')
    assert content_id(picture) == identity, "the same numbers"
    assert same_content(identity, identity) and same_content(file_id(picture), identity) and not same_content(identity, file_id(picture))
    write(sidecar, b'{"spacing": [5, 1, 1]}')
    assert not same_content(identity, content_id(picture))
    write(sidecar, b"{half")
    assert content_id(picture) not in (identity, file_id(picture)), "reading names what is wrong"
    write(sidecar, b'{"by": "me"}')
    assert content_id(picture) == file_id(picture)


def test_several_files_are_identified_together_and_a_missing_one_is_named(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.nii", bytes([number])) for number in range(6)]
    assert content_ids([*paths, paths[0]], what="Test") == {path: file_id(path) for path in paths}
    with pytest.raises(ValueError, match=r"gone\.nii: expected a file or a folder"):
        content_ids([tmp_path / "gone.nii"], what="Test")


def test_recorded_ids_of_a_case_are_believed_without_its_files(tmp_path: Path) -> None:
    image, label = write(tmp_path / "image.nii", b"image"), write(tmp_path / "label.nii", b"label")
    assert case_ids(Case("a", (image,), label)) == (file_id(image), file_id(label))
    assert label_id(Case("a", (image,), label)) == file_id(label)
    gone = Case("a", (tmp_path / "gone.nii",), tmp_path / "gone.nii", digests=("i:1", "l:2"))
    assert (case_ids(gone), label_id(gone)) == (("i:1", "l:2"), "l:2")
    with pytest.raises(ValueError, match="a: expected a label map, found none"):
        label_id(Case("a", (image,)))


def test_an_artefact_is_current_as_long_as_it_was_made_from_the_same(tmp_path: Path) -> None:
    artefact, stamp = write(tmp_path / "a.b2nd", b"made"), Stamp({"image": "i:1"}, {"spacing": value_id((1.0, 2.0))})
    assert not is_current(artefact, stamp), "nobody said from what"
    record(artefact, stamp)
    assert is_current(artefact, stamp)
    assert not is_current(artefact, Stamp({"image": "j:1"}, stamp.settings))
    assert not is_current(artefact, Stamp(stamp.inputs, {"spacing": value_id((1.0, 3.0))}))
    copied = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}_copied"))
    for path in copied.iterdir():
        os.utime(path, ns=(1, 1))
    assert is_current(copied / "a.b2nd", stamp)
    (copied / "a.b2nd").unlink()
    assert not is_current(copied / "a.b2nd", stamp)
    (tmp_path / "a.b2nd.stamp.json").write_text("{half")
    assert not is_current(artefact, stamp)
    forget(artefact)
    forget(artefact)
    assert [path.name for path in tmp_path.iterdir()] == ["a.b2nd"]


def test_large_files_are_read_only_where_no_id_is_recorded_or_their_size_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted, other = write(tmp_path / "noted.b2nd", b"one"), write(tmp_path / "other.b2nd", b"two")
    record_id(noted)
    expected, read = {noted: file_id(noted), other: file_id(other)}, []
    monkeypatch.setattr("autoseg.runtime.provenance.content_id", lambda path: read.append(path) or file_id(path))
    assert recorded_ids([noted, other], what="Test") == expected
    assert read == [other]
    write(noted, b"three")
    assert recorded_ids([noted], what="Test") == {noted: file_id(noted)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noted.b2nd", "noted.b2nd.id.json", "other.b2nd"], "reading writes nothing"


def test_states_of_0_1_0_agree_by_size() -> None:
    one, other = f"{'a' * 64}:12", f"{'b' * 64}:7"
    assert state_of_0_1_0_fits("12:1700000000000000000 7:1700000000000000001", f"{one} {other}")
    assert not state_of_0_1_0_fits("13:1700000000000000000 7:1700000000000000001", f"{one} {other}")
    assert state_of_0_1_0_fits("12:1700000000000000000 all ball=1.0", f"{one} all ball=1.0")
    assert not state_of_0_1_0_fits("12:1700000000000000000 all ball=1.0", f"{one} all ball=2.0")
    assert not state_of_0_1_0_fits(f"{'c' * 64}:12 -", f"{one} -"), "of today, and of another content"


@pytest.mark.parametrize(
    ("models", "unknown"),
    [
        ({"2d__T": ["0", "1"], "3d__T": ["0"]}, []),
        ({"2d__T": ["0", "1"], "3d__T": ["0"], "new__T": ["0"]}, ["new__T/0"]),
        ({"2d__T": ["0", "1", "2"], "3d__T": ["0"]}, ["2d__T/2"]),
        ({"2d__T": ["0", "1"], "3d__T": ["0", "1"]}, ["2d__T/1", "3d__T/1"]),
        ({"2d__T": ["0", "1", "all"], "3d__T": ["0", "all"]}, []),
        ({"2d__T": ["0", "1"], "3d__T": ["0", "2"]}, []),
    ],
    ids=["as then", "a new model", "a fold that would vote", "a fold that all have", "fold all", "a fold that is not compared"],
)
def test_a_choice_of_0_1_0_fits_while_it_knows_every_model(models: dict[str, list[str]], unknown: list[str]) -> None:
    table = {name: {"ball": 0.5} for name in ("2d__T", "3d__T", "2d__T + 3d__T")}
    choice = Choice({"ball": ("2d__T",)}, ("0",), table, 2, member_folds={"2d__T": ("0", "1")})
    assert models_unknown_to_0_1_0(choice, models) == unknown
