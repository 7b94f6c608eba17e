"""Images and label maps survive reading and writing with their place in space."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from factories import make_geometry, write_volume
from scipy.spatial.transform import Rotation

from autoseg.data import geometry, images
from autoseg.data.nifti_header import read_orientation
from autoseg.data.sitk_images import from_sitk, to_sitk
from autoseg.schema import Geometry

DATA = Path(os.environ.get("AUTOSEG_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


def oblique(shape: tuple[int, ...] = (4, 5, 6), seed: int = 3) -> Geometry:
    direction = Rotation.random(random_state=seed).as_matrix()
    direction[:, 2] *= -1 if seed % 2 else 1
    return Geometry(shape, (3.3, 0.7, 1.1), (-101.7, 33.3, 1e-3), tuple(direction.ravel().tolist()))


def write(path: Path, array: np.ndarray, geometry: Geometry | None = None) -> Path:
    image = to_sitk(array, geometry) if geometry else sitk.GetImageFromArray(array)
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("seed", range(6))
def test_label_has_its_image_geometry_to_the_last_digit_in_nifti(tmp_path, seed):
    source = write(tmp_path / "image.nii.gz", np.zeros((4, 5, 6), np.int16), oblique(seed=seed))
    image = images.read_image([source])
    label = images.write_label(tmp_path / "label.nii.gz", np.ones((4, 5, 6), np.uint8), image.geometry)
    first, second = sitk.ReadImage(str(source)), sitk.ReadImage(str(label))
    assert first.GetSpacing() == second.GetSpacing()
    assert first.GetOrigin() == second.GetOrigin()
    assert first.GetDirection() == second.GetDirection()
    assert read_orientation(source) == read_orientation(label)


@pytest.mark.parametrize(("ending", "exact"), [(".mha", True), (".nrrd", False), (".nii", True)])
def test_round_trip_of_other_formats(tmp_path, ending, exact):
    source = write(tmp_path / f"image{ending}", np.zeros((4, 5, 6), np.int16), oblique())
    image = images.read_image([source])
    label = images.write_label(tmp_path / f"label{ending}", np.arange(120).reshape(4, 5, 6), image.geometry)
    found = images.read_label(label)
    np.testing.assert_array_equal(found.array, np.arange(120).reshape(4, 5, 6))
    assert images.read_geometry(source) == image.geometry
    if exact:
        assert found.geometry == image.geometry
    np.testing.assert_allclose(found.geometry.direction, image.geometry.direction, atol=1e-15)
    np.testing.assert_allclose(found.geometry.spacing, image.geometry.spacing, rtol=1e-15)


def test_a_stale_nifti_header_is_not_used(tmp_path):
    source = write(tmp_path / "image.nii.gz", np.zeros((4, 5, 6), np.int16), oblique())
    moved = dataclasses.replace(images.read_geometry(source), origin=(1.0, 2.0, 3.0))
    label = images.write_label(tmp_path / "label.nii.gz", np.ones((4, 5, 6), np.uint8), moved)
    assert images.read_geometry(label).origin == (1.0, 2.0, 3.0)


def test_axis_order_is_channels_z_y_x(tmp_path):
    array = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    image = images.read_image([write_volume(tmp_path / f"c_{i}.nii.gz", array[i], spacing=(0.5, 1.0, 2.0)) for i in range(2)])
    np.testing.assert_array_equal(image.array, array)
    assert image.array.dtype == np.float32
    assert (image.geometry.shape, image.geometry.spacing) == ((3, 4, 5), (2.0, 1.0, 0.5))


def test_a_4d_file_gives_its_channels(tmp_path):
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(tmp_path / "a.nii.gz"))
    image = images.read_image([tmp_path / "a.nii.gz"])
    np.testing.assert_array_equal(image.array, array)
    assert image.geometry.dim == 3
    assert len(image.geometry.direction) == 9
    assert images.count_channels(tmp_path / "a.nii.gz") == 2
    assert images.read_geometry(tmp_path / "a.nii.gz") == image.geometry


@pytest.mark.parametrize(("name", "components"), [("a.png", 3), ("a.tif", 3), ("a.bmp", 3), ("a.png", 4)])
def test_colour_pictures_without_their_alpha_are_no_label_maps(tmp_path, name, components):
    array = np.random.default_rng(0).integers(0, 255, (6, 7, components), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / name))
    image = images.read_image([tmp_path / name])
    np.testing.assert_array_equal(image.array, np.moveaxis(array[..., :3], -1, 0))
    assert image.geometry == make_geometry((6, 7))
    assert images.count_channels(tmp_path / name) == 3
    with pytest.raises(ValueError, match="3 channels"):
        images.read_label(tmp_path / name)


@pytest.mark.parametrize(
    ("given", "written"),
    [("a.png", "a.png"), ("a.tif", "a.tif"), ("a.bmp", "a.bmp"), ("a.jpg", "a.png"), ("a.JPEG", "a.png"), ("a.MHD", "a.mha")],
)
def test_formats_of_labels(tmp_path, given, written):
    array = np.arange(42, dtype=np.uint8).reshape(6, 7)
    path = images.write_label(tmp_path / given, array, dataclasses.replace(make_geometry((6, 7)), has_spacing=False))
    assert [file.name for file in tmp_path.iterdir()] == [path.name] == [written]
    np.testing.assert_array_equal(images.read_label(path).array, array)
    assert images.read_label(path).geometry.spacing == (1.0, 1.0)


@pytest.mark.parametrize(
    ("wanted", "dim", "ending"),
    [("nrrd", 3, ".nrrd"), (".NII.gz", 3, ".nii.gz"), (".jpg", 2, ".png"), (".mhd", 3, ".mha"), (".tif", 3, ".tif"), (".bmp", 2, ".bmp")],
)
def test_ending_that_is_asked_for(wanted, dim, ending):
    assert images.written_ending(wanted, dim) == ending


@pytest.mark.parametrize(("wanted", "dim"), [(".png", 3), (".jpg", 3), ("", 3), ("dcm", 3), (".txt", 2)])
def test_ending_that_cannot_be_written_is_refused_with_those_that_can(wanted, dim):
    with pytest.raises(ValueError, match=rf"{dim} axes: expected one of .*\.nii\.gz.*, got '{wanted}'"):
        images.written_ending(wanted, dim)


def test_tiff_stack_has_its_spacing_in_a_file_beside_it(tmp_path):
    path = images.write_label(tmp_path / "a.tif", np.ones((3, 4, 5), np.uint8), make_geometry((3, 4, 5), (2.0, 1.0, 0.5)))
    assert json.loads((tmp_path / "a.json").read_text())["spacing"] == [2.0, 1.0, 0.5]
    assert images.read_label(path).geometry.spacing == (2.0, 1.0, 0.5)
    assert not images.read_label(path).geometry.oriented


@pytest.mark.parametrize(("largest", "kind"), [(255, np.uint8), (256, np.uint16), (65536, np.uint32)])
def test_smallest_sufficient_type(tmp_path, largest, kind):
    array = np.zeros((2, 3, 4), np.int64)
    array[0, 0, 0] = largest
    path = images.write_label(tmp_path / "a.nii.gz", array, oblique((2, 3, 4)))
    assert images.read_label(path).array.dtype == kind
    assert images.read_label(path).array.max() == largest


def test_equal_label_maps_give_equal_files_and_nothing_is_left_over(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        images.write_label(tmp_path / name / "x.nii.gz", np.ones((4, 5, 6), np.uint8), oblique())
    assert (tmp_path / "a/x.nii.gz").read_bytes() == (tmp_path / "b/x.nii.gz").read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.nii.gz"]


@pytest.mark.parametrize(
    ("array", "name", "said"),
    [
        (np.full((4, 5, 6), -1), "a.nii.gz", "between 0"),
        (np.zeros((4, 5, 7), int), "a.nii.gz", "expected integer labels of shape"),
        (np.zeros((4, 5, 6)), "a.nii.gz", "float64"),
        (np.zeros((4, 5, 6), int), "a.png", "3 axes"),
        (np.zeros((4, 5, 6), int), "a.xyz", "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, array, name, said):
    with pytest.raises(ValueError, match=said):
        images.write_label(tmp_path / name, array, oblique())
    assert not list(tmp_path.iterdir())


def test_float_labels_are_read_unless_they_are_fractional(tmp_path):
    array = np.full((4, 5, 6), 3.0, np.float32)
    array[1, 0, 0] = 1.0000001
    found = images.read_label(write(tmp_path / "l.nii.gz", array)).array
    assert found.dtype.kind == "i" and found[1, 0, 0] == 1 and (found == 3).sum() == found.size - 1
    array[0, 0, :2] = 0.5
    with pytest.raises(ValueError, match=r"l\.nii\.gz.*2 voxels.*0\.5"):
        images.read_label(write(tmp_path / "l.nii.gz", array))


def test_channels_in_different_places_are_refused(tmp_path):
    array = np.zeros((4, 5, 6), np.float32)
    first = write(tmp_path / "a.nii.gz", array, oblique())
    second = write(tmp_path / "b.nii.gz", array, dataclasses.replace(oblique(), origin=(0.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match=r"(?s)b\.nii\.gz differs from .*a\.nii\.gz in origin by 107"):
        images.read_image([first, second])


@pytest.mark.parametrize(("name", "content"), [("none.nii.gz", None), ("bad.nii.gz", b"nothing"), ("a.txt", b"text"), ("bad.png", b"x")])
def test_unreadable_files_are_named(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (images.read_label, images.read_geometry, lambda path: images.read_image([path])):
        with pytest.raises(ValueError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.4, 0.9997])
def test_a_truncated_file_is_named(tmp_path, ending, share):
    path = write(tmp_path / f"a{ending}", np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=f"a{ending}: cannot be read"):
        images.read_image([path])


def test_a_truncated_file_that_was_compressed_again_is_named(tmp_path):
    path = write(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[: len(content) // 2]))
    with pytest.raises(ValueError, match="before its last voxel"):
        images.read_image([path])
    path.write_bytes(gzip.compress(content[:999]) + gzip.compress(content[999:]))
    assert images.read_image([path]).array.shape == (1, 20, 20, 20)


def test_geometry_difference_measures():
    base = oblique((40, 50, 60))
    assert geometry.geometry_difference(base, base) == ""
    assert geometry.geometry_difference(base, dataclasses.replace(base, origin=(-101.71, 33.3, 1e-3))) == ""
    turned = Rotation.from_euler("z", 5, degrees=True).as_matrix() @ np.reshape(base.direction, (3, 3))
    moved = {"shape": (1, 50, 60), "origin": (-111.7, 33.3, 1e-3), "spacing": (3.3, 0.7, 1.2), "direction": tuple(turned.ravel().tolist())}
    for field, measure in (("shape", "shape"), ("origin", "origin by 10 mm"), ("spacing", "spacing"), ("direction", "direction by")):
        assert measure in geometry.geometry_difference(base, dataclasses.replace(base, **{field: moved[field]}))


def test_world_and_index_are_inverse():
    points = np.random.default_rng(0).uniform(0, 30, (10, 3))
    np.testing.assert_allclose(geometry.to_index(oblique(), geometry.to_world(oblique(), points)), points, atol=1e-9)
    image = to_sitk(np.zeros((4, 5, 6)), oblique())
    np.testing.assert_allclose(
        geometry.to_world(oblique(), points[:1])[0], image.TransformContinuousIndexToPhysicalPoint(points[0].tolist())
    )


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (2, 4, 5, 6), (4, 5, 6)])
def test_sitk_and_back(shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    back = from_sitk(to_sitk(array, oblique()))
    np.testing.assert_array_equal(back.array, array if array.ndim == 4 else array[None])
    assert back.geometry == oblique()


@pytest.mark.skipif(not (DATA / "ct_one_case").is_dir(), reason=f"no real data in {DATA}")
@pytest.mark.parametrize("name", ["torso_ct.nii.gz", "abdomen_mr.nii.gz", "dicom_series"])
def test_real_images_keep_their_geometry(tmp_path, name):
    image = images.read_image([DATA / "ct_one_case" / name])
    assert images.read_geometry(DATA / "ct_one_case" / name) == image.geometry
    label = images.write_label(tmp_path / "a.nii.gz", (image.array[0] > 0).astype(np.uint8), image.geometry)
    assert images.read_geometry(label) == image.geometry
    if name.endswith(".nii.gz"):
        assert read_orientation(label) == read_orientation(DATA / "ct_one_case" / name)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_an_image_without_one_finite_voxel_is_refused(tmp_path, ending):
    file = write_volume(tmp_path / f"x{ending}", np.full((3, 4, 5), np.nan, np.float32))
    with pytest.raises(ValueError, match=f"x{ending}.*only voxels that are NaN or infinite"):
        images.read_image([file])


def test_gipl_holds_volumes_of_small_values_only(tmp_path):
    array = np.zeros((4, 5, 6), np.int64)
    with pytest.raises(ValueError, match=r"a.gipl: .gipl holds label values below 65536, got 70000"):
        images.write_label(tmp_path / "a.gipl", array + 70000, make_geometry(array.shape))
    with pytest.raises(ValueError, match="an image of 2 axes cannot be written there"):
        images.write_label(tmp_path / "a.gipl", array[0], make_geometry(array.shape[1:]))
    label = images.write_label(tmp_path / "a.gipl", array + 65535, make_geometry(array.shape))
    np.testing.assert_array_equal(images.read_label(label).array, array + 65535)
