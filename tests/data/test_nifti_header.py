"""The orientation fields of NIfTI headers, read, written and straightened."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from factories import skew_sform, write_volume

from autoseg.data import nifti_header as header
from autoseg.data.images import nifti_forms
from autoseg.data.nifti_geometry import straightened


@pytest.fixture
def source(tmp_path):
    """A NIfTI file whose sform axes are not orthogonal and whose qform is absent: ITK refuses it."""
    skew_sform(write_volume(tmp_path / "a.nii.gz", np.arange(60, dtype=np.int16).reshape(3, 4, 5), spacing=(1.0, 1.0, 1.0)))
    return tmp_path / "a.nii.gz"


def test_fields_survive_a_copy(source, tmp_path):
    for name in ("b.nii", "c.nii.gz"):
        header.copy_with_orientation(source, tmp_path / name, ())
        assert header.read_orientation(tmp_path / name) == header.read_orientation(source)
    assert len(header.read_orientation(source)) == header.N_FIELDS


def test_other_files_have_none(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"short")
    assert header.read_orientation(tmp_path / "a.nii") == ()
    assert header.read_orientation(tmp_path / "none.nii") == ()
    with pytest.raises(ValueError, match="NIfTI-1 header"):
        header.patch_orientation(b"short", (0.0,) * header.N_FIELDS)


def test_straightening_makes_it_readable(source, tmp_path):
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(source))
    reading = nifti_forms(source).reading
    assert reading.skew() == pytest.approx(0.01, rel=1e-3)
    header.copy_with_orientation(source, tmp_path / "b.nii.gz", straightened(header.read_orientation(source), reading))
    assert nifti_forms(tmp_path / "b.nii.gz").reading.skew() < 1e-6
    image = sitk.ReadImage(str(tmp_path / "b.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), np.arange(60).reshape(3, 4, 5))
    np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel(), atol=0.006)
