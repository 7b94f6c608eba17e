"""DICOM folders: the right series, in order, refused where it is no regular grid."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.dicom import is_dicom_file, is_dicom_folder, read_series
from autoseg.data.images import count_channels, read_geometry, read_image


def write_series(folder: Path, positions: np.ndarray, *, uid: str = "1.2.3.1", names: str = "s") -> np.ndarray:
    """Writes slices (N, 5, 6) at `positions` (N, 3) as CT files, in reverse order of their names."""
    folder.mkdir(exist_ok=True)
    volume = np.random.default_rng(0).integers(-1000, 1000, (len(positions), 5, 6)).astype(np.int16)
    for i, position in enumerate(positions):
        image = sitk.GetImageFromArray(volume[i])
        image.SetSpacing((0.7, 0.9))
        tags = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{i + 1}",
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0020|0032": "\\".join(f"{value:g}" for value in position),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(len(positions) - i),
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{names}{len(positions) - i:03d}.dcm"))
        writer.Execute(image)
    return volume


def stack(n: int = 6, gap: float = 2.5) -> np.ndarray:
    return np.array([[-10.0, 20.0, -30.0 + gap * i] for i in range(n)])


def test_slices_come_in_order_with_their_geometry(tmp_path):
    volume = write_series(tmp_path / "d", stack())
    assert is_dicom_folder(tmp_path / "d")
    image = read_image([tmp_path / "d"])
    np.testing.assert_array_equal(image.array[0], volume)
    assert image.geometry.shape == (6, 5, 6)
    assert image.geometry.spacing == (2.5, 0.9, 0.7)
    assert image.geometry.origin == (-10.0, 20.0, -30.0)
    assert read_geometry(tmp_path / "d") == image.geometry
    assert count_channels(tmp_path / "d") == 1


def test_the_largest_series_is_taken(tmp_path):
    write_series(tmp_path / "d", stack(2), uid="1.2.3.9", names="scout")
    volume = write_series(tmp_path / "d", stack(5))
    np.testing.assert_array_equal(read_image([tmp_path / "d"]).array[0], volume)


def test_equal_series_are_refused_with_a_list(tmp_path):
    write_series(tmp_path / "d", stack(5), uid="1.2.3.9", names="a")
    write_series(tmp_path / "d", stack(5))
    with pytest.raises(ValueError, match="several of equal size.*5 slices.*5 slices"):
        read_series(tmp_path / "d")


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (np.delete(stack(), 3, axis=0), r"even slice gaps of 2\.5 mm, found 5 mm between slices 3 and 4"),
        (stack() + [[0, np.tan(np.radians(12)) * 2.5 * i, 0] for i in range(6)], r"gantry tilt of 12\.00 degrees"),
        (stack()[[0, 1, 2, 2, 4, 5]], "1 slices at the position of another"),
    ],
)
def test_what_is_no_regular_grid_is_refused_with_its_measure(tmp_path, positions, message):
    write_series(tmp_path / "d", np.round(positions, 4))
    with pytest.raises(ValueError, match=message):
        read_series(tmp_path / "d")


def test_one_slice_as_a_folder_or_a_file_with_or_without_its_ending(tmp_path):
    volume = write_series(tmp_path / "d", stack(1))
    file = next((tmp_path / "d").iterdir())
    for path in (tmp_path / "d", file, shutil.copyfile(file, tmp_path / "IM0001")):
        np.testing.assert_array_equal(read_image([path]).array[0], volume)
    assert read_geometry(tmp_path / "d").shape == (1, 5, 6)


def test_other_folders_and_tables_of_contents_are_no_dicom(tmp_path):
    assert not is_dicom_folder(tmp_path)
    assert not is_dicom_folder(tmp_path / "nothing")
    (tmp_path / "a.nii.gz").write_bytes(b"no dicom")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert not is_dicom_folder(tmp_path)
    assert not is_dicom_file(tmp_path / "DICOMDIR")
    with pytest.raises(ValueError, match="found none"):
        read_series(tmp_path)
