"""The rule by which a NIfTI header gives a place, with headers written byte by byte."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_geometry

from autoseg.data.images import nifti_forms, read_geometry, read_image, read_label, write_image, write_label
from autoseg.data.nifti_header import read_orientation
from autoseg.preprocessing.orientation import orientation_of

SIZE = (4, 5, 6)
TRUE = (0.9, 0.8, 2.5)
"""Spacing of the files, x, y, z."""
NAN, INF = math.nan, math.inf


def matrix(*scale: float, shift: float = 0.0) -> tuple[float, ...]:
    """An sform along the axes, 12 numbers."""
    x, y, z = scale
    return (x, 0, 0, 10 + shift, 0, y, 0, 20, 0, 0, z, 30)


def header(path: Path, *, order: str = "<", **changes: Any) -> Path:
    """Writes a file of bytes whose forms agree: spacing `TRUE`, origin 10, 20, 30; but for what `changes` names."""
    values = {"pixdim": TRUE, "qfac": 1.0, "codes": (1, 1), "quaternion": (0, 0, 0), "offset": (10, 20, 30), "sform": matrix(*TRUE)}
    values |= {"units": 2, "size": SIZE, "start": 352.0} | changes
    size = values["size"]
    data = bytearray(352)
    struct.pack_into(order + "i", data, 0, 348)
    struct.pack_into(order + "8h", data, 40, len(size), *size, *(1,) * (7 - len(size)))
    struct.pack_into(order + "2h", data, 70, 2, 8)
    struct.pack_into(order + "4f", data, 76, values["qfac"], *values["pixdim"])
    struct.pack_into(order + "f", data, 108, values["start"])
    data[123] = values["units"]
    struct.pack_into(order + "2h6f12f", data, 252, *values["codes"], *values["quaternion"], *values["offset"], *values["sform"])
    data[344:348] = b"n+1\0"
    start = values["start"] if math.isfinite(values["start"]) else 352
    path.write_bytes(bytes(data) + bytes(max(int(start), 352) - 352) + np.arange(math.prod(size), dtype=np.uint8).tobytes())
    return path


TURN = math.sqrt(0.5)

PLAIN = {
    "both forms": {},
    "no qform": {"codes": (0, 1)},
    "no sform": {"codes": (1, 0), "sform": (0.0,) * 12},
    "code 0 of a false sform": {"codes": (1, 0), "sform": matrix(1, 1, 1, shift=99)},
    "code 0 of a false qform": {"codes": (0, 2), "quaternion": (0, 0, 1), "offset": (0, 0, 0)},
    "negative pixdim": {"pixdim": (-0.9, 0.8, -2.5)},
    "microns": {"units": 3, "pixdim": (900, 800, 2500), "offset": (1e4, 2e4, 3e4), "sform": tuple(1000 * v for v in matrix(*TRUE))},
    "metres": {"units": 1, "pixdim": (9e-4, 8e-4, 25e-4), "offset": (0.01, 0.02, 0.03), "sform": tuple(v / 1000 for v in matrix(*TRUE))},
    "big-endian": {"order": ">"},
    "voxels from a later byte": {"start": 368.0},
    "vox_offset 0": {"start": 0.0},
}


@pytest.mark.parametrize("changes", PLAIN.values(), ids=PLAIN)
def test_headers_that_say_one_thing(tmp_path, changes, caplog):
    path = header(tmp_path / "a.nii", **changes)
    image = read_image([path])
    np.testing.assert_allclose(image.geometry.spacing, TRUE[::-1], rtol=1e-6)
    np.testing.assert_allclose(image.geometry.origin, (-10, -20, 30), rtol=1e-6)
    np.testing.assert_allclose(image.geometry.direction, np.diag([-1, -1, 1]).ravel(), atol=1e-6)
    assert image.array.ravel().tolist() == list(range(math.prod(SIZE)))
    assert read_geometry(path) == image.geometry
    assert ["converted" in record.message for record in caplog.records] == [True] * (changes.get("units", 2) != 2)
    assert nifti_forms(path).contradiction == ""


@pytest.mark.parametrize(("units", "word"), [(1, "metres"), (3, "microns")])
def test_millimetres_that_are_called_metres_or_microns_are_refused(tmp_path, units, word):
    path = header(tmp_path / "a.nii", units=units)
    with pytest.raises(ValueError, match=rf"a\.nii: .*expected voxels of 0.01 to 50 mm, found .*xyzt_units\) is {word}"):
        read_image([path])
    with pytest.raises(ValueError, match="xyzt_units"):
        read_geometry(path)


SETTLED = {
    "unit sform, spacing in pixdim and qform (ACDC)": ({"sform": matrix(1, 1, 1)}, "qform"),
    "unit sform, spacing in pixdim alone": ({"sform": matrix(1, 1, 1), "codes": (0, 1)}, "sform with the spacing of pixdim"),
    "unit pixdim, spacing in the sform": ({"pixdim": (1, 1, 1)}, "sform"),
    "unit pixdim, spacing in the sform, no qform": ({"pixdim": (1, 1, 1), "codes": (0, 1)}, "sform"),
    "pixdim 0": ({"pixdim": (0.9, 0.8, 0)}, "sform"),
    "pixdim NaN": ({"pixdim": (NAN, 0.8, 2.5)}, "sform"),
    "pixdim infinite": ({"pixdim": (0.9, INF, 2.5)}, "sform"),
    "singular sform": ({"sform": (0.9, 0, 0, 10, 0.9, 0, 0, 20, 0, 0, 2.5, 30)}, "qform"),
    "sform NaN": ({"sform": (NAN,) * 12}, "qform"),
    "sform infinite": ({"sform": matrix(0.9, INF, 2.5)}, "qform"),
    "quaternion NaN": ({"quaternion": (NAN, 0, 0)}, "sform"),
    "quaternion too long": ({"quaternion": (3, 0, 0)}, "sform"),
    "offset infinite": ({"offset": (INF, 0, 0)}, "sform"),
}


@pytest.mark.parametrize(("changes", "taken"), SETTLED.values(), ids=SETTLED)
def test_a_lost_form_gives_way_with_a_warning(tmp_path, changes, taken, caplog):
    path = header(tmp_path / "a.nii", **changes)
    image = read_image([path])
    np.testing.assert_allclose(image.geometry.spacing, TRUE[::-1], rtol=1e-6)
    np.testing.assert_allclose(image.geometry.origin, (-10, -20, 30), rtol=1e-6)
    assert nifti_forms(path).reading.name == taken
    assert "contradicts itself" in caplog.text
    assert f"taken: {taken}" in caplog.text
    label = write_label(tmp_path / "label.nii", np.ones(SIZE[::-1], np.uint8), image.geometry)
    caplog.clear()
    assert read_label(label).geometry == image.geometry
    assert not caplog.records  # a label map repeats no contradiction


ELSEWHERE = {
    "mirrored": {"sform": (-0.9, 0, 0, 12.7, 0, 0.8, 0, 20, 0, 0, 2.5, 30)},
    "mirrored by qfac": {"qfac": -1.0},
    "turned": {"quaternion": (0, 0, TURN)},
    "shifted": {"offset": (10, 25, 30)},
}


@pytest.mark.parametrize("changes", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_sform_that_agrees_with_pixdim_is_taken_although_the_qform_lies_elsewhere(tmp_path, changes, caplog):
    path = header(tmp_path / "a.nii", **changes)
    image = read_image([path])
    assert image.geometry == read_geometry(path) == read_geometry(path, nifti_geometry="sform")
    alone = header(tmp_path / "alone.nii", **({"sform": changes["sform"]} if "sform" in changes else {}), codes=(0, 1))
    assert image.geometry == read_geometry(alone)
    assert "sform and qform lie in different places: sform: spacing" in caplog.text
    assert "qform: spacing" in caplog.text
    assert "taken: sform" in caplog.text
    other = read_geometry(path, nifti_geometry="qform")
    assert other == read_geometry(header(tmp_path / "q.nii", **{**changes, "codes": (1, 0)}))
    for geometry in (image.geometry, other):
        label = write_label(tmp_path / "label.nii.gz", np.ones(SIZE[::-1], np.uint8), geometry)
        assert read_geometry(label) == geometry
        assert nifti_forms(label).contradiction == ""


AMBIGUOUS = {
    "other scales": {"pixdim": (0.7, 0.7, 5.0)},
    "other scales, no qform": {"pixdim": (0.7, 0.7, 5.0), "codes": (0, 1)},
    "another scale, mirrored": {"sform": (-1.9, 0, 0, 12.7, 0, 0.8, 0, 20, 0, 0, 2.5, 30)},
}


@pytest.mark.parametrize("changes", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_stays_ambiguous_is_refused_until_the_user_says(tmp_path, changes):
    path = header(tmp_path / "a.nii", **changes)
    for read in (read_geometry, read_label, lambda path: read_image([path])):
        with pytest.raises(ValueError, match=r"a.nii: its header contradicts itself: .*sform: spacing .* --nifti-geometry sform or qform"):
            read(path)
    forms = nifti_forms(path)
    assert forms.reading is None
    readings = {wanted: read_image([path], nifti_geometry=wanted).geometry for wanted in ("sform", "qform")}
    assert readings["sform"] != readings["qform"]
    np.testing.assert_allclose(readings["sform"].spacing, forms.readings[0].spacing[::-1], rtol=1e-6)
    for wanted, geometry in readings.items():
        label = write_label(tmp_path / f"{wanted}.nii.gz", np.ones(SIZE[::-1], np.uint8), geometry)
        assert read_geometry(label) == geometry  # says one thing


INVALID = {
    "no spacing at all": {"codes": (0, 0), "pixdim": (0, 0, 0)},
    "pixdim NaN without sform": {"codes": (1, 0), "pixdim": (NAN, 1, 1)},
    "both forms lost": {"sform": (0.0,) * 12, "quaternion": (NAN, 0, 0)},
    "unknown unit": {"units": 5},
    "vox_offset infinite": {"start": INF},
    "vox_offset NaN": {"start": NAN},
    "vox_offset broken": {"start": 352.5},
    "vox_offset in the header": {"start": 100.0},
    "vox_offset negative": {"start": -352.0},
}


@pytest.mark.parametrize("changes", INVALID.values(), ids=INVALID)
def test_headers_without_a_place_are_refused_by_name(tmp_path, changes):
    path = header(tmp_path / "a.nii", **changes)
    for wanted in (None, "sform", "qform"):
        with pytest.raises(ValueError, match=r"a.nii: cannot be read: expected .* found .*NIfTI header"):
            read_image([path], nifti_geometry=wanted)


def test_without_any_form_the_spacing_is_that_of_pixdim_at_the_origin(tmp_path):
    geometry = read_geometry(header(tmp_path / "a.nii", codes=(0, 0), pixdim=(-0.9, 0.8, 2.5)))
    np.testing.assert_allclose(geometry.spacing, TRUE[::-1], rtol=1e-6)
    assert (geometry.origin, geometry.direction) == ((0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    assert orientation_of(geometry) == ""  # made up
    assert orientation_of(read_geometry(header(tmp_path / "b.nii"))) == "SAR"


PLANES = {
    "coronal": (-0.9, 0, 0, 5, 0, 0, 2.5, 7, 0, 0.8, 0, 9),
    "sagittal": (0, 0, 2.5, 5, 0.9, 0, 0, 7, 0, 0.8, 0, 9),
}


@pytest.mark.parametrize("sform", PLANES.values(), ids=PLANES)
def test_a_picture_that_is_not_axial_has_no_direction_and_its_label_map_the_same_header(tmp_path, sform):
    geometry = read_geometry(header(tmp_path / "a.nii", size=SIZE[:2], codes=(0, 1), sform=sform))
    assert (geometry.direction, geometry.oriented) == ((1.0, 0.0, 0.0, 1.0), False)
    np.testing.assert_allclose(geometry.spacing, TRUE[1::-1], rtol=1e-6)
    for name in ("label.nii.gz", "label.mha"):
        label = write_label(tmp_path / name, np.ones(geometry.shape, np.uint8), geometry)
        assert read_geometry(label) == geometry
    assert read_orientation(tmp_path / "label.nii.gz") == read_orientation(tmp_path / "a.nii")


def test_the_direction_of_a_picture_near_the_axial_plane_is_orthonormal(tmp_path):
    tilt = math.radians(20)
    rows = (0.9, 0, 0, 1, 0, 0.8 * math.cos(tilt), -2.5 * math.sin(tilt), 2, 0, 0.8 * math.sin(tilt), 2.5 * math.cos(tilt), 3)
    geometry = read_geometry(header(tmp_path / "a.nii", size=SIZE[:2], codes=(0, 1), sform=rows))
    np.testing.assert_allclose(geometry.direction, (-1, 0, 0, -1), atol=1e-6)
    assert geometry.oriented


@pytest.mark.parametrize("shape", [(3, 5, 6), (2, 4, 5, 6)])
def test_channels_of_pictures_and_volumes_survive(tmp_path, shape):
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    image = read_image([write_image(tmp_path / "a.nii.gz", array, make_geometry(shape[1:]))])
    assert image.geometry.shape == shape[1:]
    np.testing.assert_array_equal(image.array, array)


def test_an_axis_of_one_voxel_needs_no_pixdim(tmp_path):
    geometry = read_geometry(header(tmp_path / "a.nii", size=(4, 5, 1), pixdim=(0.9, 0.8, 0)))
    np.testing.assert_allclose(geometry.spacing, TRUE[::-1], rtol=1e-6)


def test_other_words_than_sform_and_qform_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--nifti-geometry: expected sform or qform, got 'both'"):
        read_image([header(tmp_path / "a.nii")], nifti_geometry="both")
