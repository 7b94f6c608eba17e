"""MetaImage and NRRD headers whose spacing, unit, axes or values would not be read as they are meant are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.checks import NOT_ORTHONORMAL, check_dataset
from autoseg.data.images import count_channels, read_geometry, read_image, read_label

VOLUME = np.arange(60, dtype="<i2").reshape(3, 4, 5)
PLACED = "space: left-posterior-superior\nspace directions: (2,0,0) (0,3,0) (0,0,4)\n"


def metaimage(path: Path, *lines: str, spacing: str = "ElementSpacing = 2 3 4") -> Path:
    """A MetaImage file with further lines in its header."""
    head = ["ObjectType = Image", "NDims = 3", *lines, *filter(None, [spacing]), "DimSize = 5 4 3", "ElementType = MET_SHORT"]
    path.write_bytes("\n".join([*head, "ElementDataFile = LOCAL\n"]).encode() + VOLUME.tobytes())
    return path


def nrrd(path: Path, place: str) -> Path:
    """An NRRD file with that part of its header."""
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nendian: little\nencoding: raw\n"
    path.write_bytes(f"{head}{place}\n".encode() + VOLUME.tobytes())
    return path


def raises(path: Path, words: str) -> None:
    for read in (lambda: read_image([path]), lambda: read_label(path), lambda: read_geometry(path), lambda: count_channels(path)):
        with pytest.raises(ValueError, match=words) as error:
            read()
        assert path.name in str(error.value)


def test_a_file_without_spacing_is_no_file_of_one_millimetre(tmp_path):
    raises(metaimage(tmp_path / "a.mha", spacing=""), "expected a spacing, in the field ElementSpacing")
    for place in ("", "axis mins: 0 0 0\naxis maxs: 10 12 12\n"):
        raises(nrrd(tmp_path / "a.nrrd", place), "expected a spacing, .* found in its header: none; add a line")
    raises(nrrd(tmp_path / "a.nrrd", "spacings: 2 3 nan\n"), "none for axis 3")
    raises(nrrd(tmp_path / "a.nrrd", PLACED.replace("(2,0,0)", "none")), "none for axis 1")


def test_what_says_a_spacing_in_millimetres_is_read(tmp_path):
    files = [metaimage(tmp_path / "a.mha", spacing="ElementSize = 2 3 4"), metaimage(tmp_path / "b.mha", "DistanceUnits = mm")]
    files += [nrrd(tmp_path / f"{k}.nrrd", f"spacings: 2 3 4\n{more}") for k, more in enumerate(["", 'units: "mm" "mm" "mm"\n'])]
    files += [nrrd(tmp_path / "2.nrrd", f'{PLACED}space units: "mm" "mm" "mm"\n')]
    for file in files:
        image = read_image([file])
        assert image.geometry.spacing == (4, 3, 2)
        np.testing.assert_array_equal(image.array[0], VOLUME)


def test_other_units_are_refused(tmp_path):
    for unit in ("cm", "um"):
        raises(metaimage(tmp_path / "a.mha", f"DistanceUnits = {unit}"), f"expected millimetres, .*DistanceUnits = {unit}")
    for unit in ("m", "cm", "um"):
        raises(nrrd(tmp_path / "a.nrrd", f'{PLACED}space units: "{unit}" "{unit}" "{unit}"\n'), f"expected millimetres, .*'{unit}'")
        raises(nrrd(tmp_path / "a.nrrd", f'spacings: 2 3 4\nunits: "{unit}" "{unit}" "{unit}"\n'), f"expected millimetres, .*'{unit}'")


def test_stored_numbers_that_stand_for_others_are_refused(tmp_path):
    raises(metaimage(tmp_path / "a.mha", "ElementToIntensityFunctionSlope = 2"), "numbers that are the values, .*Slope = 2")
    raises(metaimage(tmp_path / "a.mha", "ElementToIntensityFunctionOffset = -1024"), "numbers that are the values, .*Offset = -1024")
    for field in ("old min", "oldmax"):
        raises(nrrd(tmp_path / "a.nrrd", f"{PLACED}{field}: 3\n"), f"numbers that are the values, .*{field}: 3")
    plain = metaimage(tmp_path / "a.mha", "ElementToIntensityFunctionSlope = 1", "ElementToIntensityFunctionOffset = 0")
    np.testing.assert_array_equal(read_image([plain]).array[0], VOLUME)


@pytest.mark.parametrize("name", ["TransformMatrix", "Rotation", "Orientation"])
def test_a_scale_or_shear_in_the_matrix_is_refused(tmp_path, name):
    raises(metaimage(tmp_path / "a.mha", f"{name} = 2 0 0 0 1 0 0 0 1"), f"axes of length 1, .*{name}.* lengths 2, 1, 1")
    raises(metaimage(tmp_path / "a.mha", f"{name} = 1 0 0 0.6 0.8 0 0 0 1"), f"orthogonal image axes, .*{name}.*0.6")
    turned = metaimage(tmp_path / "a.mha", f"{name} = 0.707 0.707 0 -0.707 0.707 0 0 0 1")
    assert read_image([turned]).geometry.direction == (0.707, -0.707, 0, 0.707, 0.707, 0, 0, 0, 1)


def test_a_sheared_nrrd_and_two_places_are_refused(tmp_path):
    refused_only_on_reading = nrrd(tmp_path / "a.nrrd", PLACED.replace("(2,0,0)", "(2,0.5,0)"))
    with pytest.raises(ValueError, match="orthogonal image axes, .*not orthonormal"):
        read_image([refused_only_on_reading])
    raises(metaimage(tmp_path / "a.mha", "Offset = 1 2 3", "Position = 4 5 6"), "one place, .*Offset and Position that differ")


@pytest.mark.parametrize(("matrix", "fixable"), [("1 0.02 0 0 1 0 0 0 1", True), ("1.02 0 0 0 1 0 0 0 1", False)])
def test_a_scale_is_not_repaired_by_taking_it_away(tmp_path, matrix, fixable):
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
    metaimage(tmp_path / "imagesTr/a_0000.mha", f"TransformMatrix = {matrix}")
    metaimage(tmp_path / "labelsTr/a.mha")
    info = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".mha", "numTraining": 1}
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    found = [problem for problem in check_dataset(tmp_path, workers=0) if problem.kind == NOT_ORTHONORMAL]
    assert [problem.fixable for problem in found] == [fixable]
