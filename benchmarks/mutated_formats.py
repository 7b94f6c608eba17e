"""The image formats whose files `mutations.py` damages, and a small volume written in each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile

SHAPE, SPACING, ORIGIN = (9, 11, 13), (0.7, 0.8, 2.5), (-31.5, 12.25, 70.0)


@dataclass(frozen=True)
class Format:
    """A kind of input: how one is written, whether its voxels lie uncompressed at the end of the file, whether they are
    compressed without a checksum."""

    write: Callable[[Path], Path]
    raw: bool = False
    unchecked: bool = False


def volume() -> sitk.Image:
    """A volume of distinct values with a geometry of its own."""
    values = np.random.default_rng(0).permutation(int(np.prod(SHAPE))).reshape(SHAPE)
    image = sitk.GetImageFromArray(values.astype(np.int16))
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image


def picture() -> sitk.Image:
    """A grey picture."""
    return sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8))


def _writer(name: str, image: Callable[[], sitk.Image] = volume, *, compress: bool = False) -> Callable[[Path], Path]:
    """A function that writes an image into a folder and returns its file."""

    def write(folder: Path) -> Path:
        sitk.WriteImage(image(), str(folder / name), compress)
        return folder / name

    return write


def _stack_writer(compression: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        """The volume as a stack of pages in the folder."""
        image = volume()
        if compression == "deflate":
            tifffile.imwrite(folder / "x.tif", sitk.GetArrayFromImage(image), compression="zlib")
        else:
            sitk.WriteImage(image, str(folder / "x.tif"), compression == "packbits")
        (folder / "x.json").write_text(json.dumps({"spacing": list(image.GetSpacing()[::-1])}))
        return folder / "x.tif"

    return write


def write_series(folder: Path) -> Path:
    """A CT series of small slices."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    values = sitk.GetArrayFromImage(volume())
    target = folder / "series"
    target.mkdir()
    for number, plane in enumerate(values):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"1.2.826.0.1.{number + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.Modality, slice_.PatientID, slice_.StudyInstanceUID, slice_.SeriesInstanceUID = "CT", "p", "1.2.3", "1.2.4"
        slice_.InstanceNumber, slice_.ImagePositionPatient = number + 1, [ORIGIN[0], ORIGIN[1], ORIGIN[2] + SPACING[2] * number]
        slice_.ImageOrientationPatient, slice_.PixelSpacing, slice_.SliceThickness = (
            [1, 0, 0, 0, 1, 0],
            [SPACING[1], SPACING[0]],
            SPACING[2],
        )
        slice_.Rows, slice_.Columns, slice_.SamplesPerPixel, slice_.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleIntercept, slice_.RescaleSlope = 0, 1
        slice_.PixelData = plane.astype("<i2").tobytes()
        slice_.save_as(target / f"{number:02d}.dcm", enforce_file_format=True)
    return target


FORMATS: dict[str, Format] = {
    "nii.gz": Format(_writer("x.nii.gz", compress=True)),
    "nii": Format(_writer("x.nii"), raw=True),
    "nrrd gzip": Format(_writer("x.nrrd", compress=True)),
    "nrrd raw": Format(_writer("x.nrrd"), raw=True),
    "mha zlib": Format(_writer("x.mha", compress=True)),
    "mha raw": Format(_writer("x.mha"), raw=True),
    "mhd": Format(_writer("x.mhd"), raw=True),
    "gipl": Format(_writer("x.gipl"), raw=True),
    "tiff deflate": Format(_stack_writer("deflate")),
    "tiff packbits": Format(_stack_writer("packbits"), unchecked=True),
    "tiff raw": Format(_stack_writer("raw"), raw=True),
    "png": Format(_writer("x.png", picture)),
    "bmp": Format(_writer("x.bmp", picture), raw=True),
    "jpeg": Format(_writer("x.jpg", picture), unchecked=True),
    "dicom": Format(write_series, raw=True),
}
