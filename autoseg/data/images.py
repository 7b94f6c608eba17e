"""Reads and writes images and label maps with their geometry, through SimpleITK (order of axes: `autoseg.schema.conventions`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..runtime.disk import explained_write_errors
from ..runtime.provenance import files_of
from ..runtime.serialization import Writer, atomic_write, write_json
from ..runtime.shown_text import one_of_many
from ..schema import Case, Geometry, Image
from . import dicom, nifti_header, raster_headers
from .geometry import geometry_difference
from .integer_labels import integer_labels
from .nifti_geometry import ResolvedForms
from .nifti_voxels import header_forms, header_geometry, read_layout, read_voxels
from .pictures import check_picture, picture_channels, sidecar_spacing, sidecars_of, written_spacing
from .raster_checks import check_orthonormal
from .sitk_images import from_sitk, to_sitk
from .slicer_segmentation import read_segments

log = logging.getLogger(__name__)

PICTURES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
"""Endings of formats without a geometry: their spacing is 1 whatever their resolution tag says."""

ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd", ".gipl", *PICTURES)
"""Image files that can be read, besides folders with a DICOM series."""

_READERS = {
    **dict.fromkeys((".nrrd", ".seg.nrrd"), "NrrdImageIO"), ".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".gipl": "GiplImageIO",
    ".png": "PNGImageIO", ".bmp": "BMPImageIO", **dict.fromkeys((".tif", ".tiff"), "TIFFImageIO"),
    **dict.fromkeys((".jpg", ".jpeg"), "JPEGImageIO"),
}  # fmt: skip


def ending_of(path: Path) -> str:
    """The file's ending as in `ENDINGS` (lower case), or an empty string where it is none of them."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), "")


def stem_of(path: Path) -> str:
    """The file's name without its image ending."""
    return path.name[: len(path.name) - len(ending_of(path))]


def label_ending(ending: str) -> str:
    """Ending for label maps of images with `ending`: JPEG would alter labels, ``.mhd`` needs a second file, DICOM has none."""
    ending = ending.lower()
    return {"": ".nii.gz", ".mhd": ".mha", ".seg.nrrd": ".nrrd", ".jpg": ".png", ".jpeg": ".png"}.get(ending, ending)


def written_ending(wanted: str, dim: int) -> str:
    """Ending for label maps of `dim` axes where `wanted` (with or without dot) is asked for; a ValueError where it cannot be written."""
    ending = label_ending(f".{wanted.strip().lstrip('.')}")
    if not _writable(ending, dim):
        fitting = sorted({label_ending(one) for one in ENDINGS if _writable(label_ending(one), dim)})
        raise ValueError(f"ending of label maps of {dim} axes: expected one of {', '.join(fitting)}, got {wanted!r}")
    return ending


def sidecar_of(path: Path) -> Path:
    """The file that holds the spacing of a picture or TIFF stack, ``case.json`` beside ``case.tif``."""
    return path.with_name(f"{stem_of(path)}.json")


def files_read(path: Path) -> list[Path]:
    """Every file that is read with an image or label map: its own (`provenance.files_of`), and for a picture the sidecar of its case."""
    sidecars = sidecars_of(path, stem_of(path)) if ending_of(path) in PICTURES else []
    return [*files_of(path), *(sidecar for sidecar in sidecars if sidecar.is_file())]


def spacing_beside(path: Path) -> str:
    """What the sidecar of a picture says of its spacing (`pictures.written_spacing`); empty for other files, and without a sidecar."""
    beside = files_read(path)[1:] if ending_of(path) in PICTURES else []
    return written_spacing(beside[0]) if beside else ""


def images_below(*paths: Path) -> list[Path]:
    """Every file that is read with the images in some folders, or with these files; what is not there is left out."""
    found = [file for path in paths for file in (path.iterdir() if path.is_dir() else [path])]
    return [read for file in found if file.is_file() and (ending_of(file) or file in paths) for read in files_read(file)]


def read_image(paths: Sequence[Path], *, nifti_geometry: str | None = None, keep_non_finite: bool = False) -> Image:
    """Reads the channels of one case.

    Args:
        paths: One file or DICOM folder a channel, in order; a 4D or colour file gives all its channels (alpha is dropped).
        nifti_geometry: ``sform`` or ``qform``: the reading of headers that contradict themselves (`autoseg.data.nifti_geometry`).
        keep_non_finite: For checks, which say what is wrong themselves: keep voxels that are NaN or infinite instead of reading them as 0
            with a warning, and do not warn of contradictory headers.

    Returns:
        Array ``(C, Z, Y, X)`` or ``(C, Y, X)``, float32.

    Raises:
        ValueError: A file is missing, unreadable, damaged or ambiguous, or the channels lie in different places.
    """
    if not paths:
        raise ValueError("read_image: expected at least one file, got none")
    images = [_read(Path(path), nifti_geometry, warn=not keep_non_finite) for path in paths]
    first = images[0]
    for image in images[1:]:
        difference = geometry_difference(first.geometry, image.geometry)
        if difference:
            raise ValueError(
                f"channels of one case must lie in the same place: {image.source} differs from {first.source} in {difference};"
                f" {first.source} has {first.geometry}, {image.source} has {image.geometry}"
            )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is looked for next
        arrays = [image.array.astype(np.float32, copy=False) for image in images]
    if not keep_non_finite:
        arrays = [_without_non_finite(array, image.source) for array, image in zip(arrays, images, strict=True)]
    array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return Image(array, first.geometry, first.source)


def read_label(path: Path, *, nifti_geometry: str | None = None) -> Image:
    """Reads a label map ``(Z, Y, X)`` or ``(Y, X)`` of an integer type; NaN and infinite voxels are 0, `nifti_geometry` as in `read_image`.

    Raises:
        ValueError: Missing or unreadable, several channels or layers, or values that are no integers (counted, one is named).
    """
    return as_label(read_stored(path, nifti_geometry=nifti_geometry))


def as_label(image: Image) -> Image:
    """A label map of what `read_stored` gave of its file; ValueErrors as `read_label`."""
    path = Path(image.source)
    read_segments(path)  # which refuses several layers, also where they are equal
    array = _without_non_finite(image.array[0], image.source)
    if len(image.array) > 1 and any(not np.array_equal(array, other) for other in image.array[1:]):
        raise ValueError(f"{path}: expected a label map with one number a voxel, found {len(image.array)} channels (a colour picture?)")
    return Image(integer_labels(array, str(path)), image.geometry, image.source)


def read_case_image(case: Case) -> Image:
    """Reads the channels of a case, as `read_image`."""
    return read_image(case.images, nifti_geometry=case.nifti_geometry)


def read_case_geometry(case: Case) -> Geometry:
    """Reads the geometry of a case's first channel from its header, as `read_geometry`."""
    return read_geometry(case.images[0], nifti_geometry=case.nifti_geometry)


def read_geometry(path: Path, *, nifti_geometry: str | None = None) -> Geometry:
    """Reads the geometry of a file or DICOM folder from its header alone; a ValueError as from `read_image`, damaged voxels excepted."""
    path = Path(path)
    if _is_dicom(path):
        return dicom.read_geometry(path)
    if _is_nifti(path):
        return header_geometry(path, read_layout(path), nifti_geometry)
    reader = _header(path)
    return _geometry(path, reader, min(reader.GetDimension(), 3))


def count_channels(path: Path) -> int:
    """Counts the channels of a file from its header alone; a DICOM folder has one."""
    path = Path(path)
    if _is_dicom(path):
        return 1
    if _is_nifti(path):
        return read_layout(path).channels
    reader = _header(path)
    components = reader.GetNumberOfComponents()
    if ending_of(path) in PICTURES:
        components = picture_channels(path, components)
    return components * (reader.GetSize()[3] if reader.GetDimension() == 4 else 1)


def nifti_forms(path: Path, nifti_geometry: str | None = None) -> ResolvedForms | None:
    """What the header of a NIfTI file says about its place, and what is read of it; None for other files."""
    return header_forms(path, read_layout(path), nifti_geometry) if _is_nifti(path) else None


def read_stored(path: Path, *, nifti_geometry: str | None = None) -> Image:
    """Reads one file or DICOM folder, ``(C, ...)`` in its own number type, NaN and infinite voxels as they are; errors as `read_image`."""
    return _read(Path(path), nifti_geometry)


def read_straightened(path: Path) -> Image:
    """As `read_stored`, of a file that is no NIfTI, with the nearest orthonormal direction (polar decomposition)."""
    reader = _header(path, crooked=True)
    array = _decoded(path, reader)
    place = _place(path, reader, array.ndim - 1)
    u, _, vt = np.linalg.svd(np.array(place.direction).reshape(place.dim, place.dim))
    return Image(array, replace(place, direction=tuple((u @ vt).ravel().tolist())), str(path))


def stored_direction(path: Path) -> np.ndarray:
    """The direction matrix that ITK reads from a file that is no NIfTI, also where it is no valid one."""
    reader = _itk_reader(path)
    reader.ReadImageInformation()
    return np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:3, :3]


def write_label(path: Path, array: np.ndarray, geometry: Geometry, *, write: Writer = atomic_write) -> Path:
    """Writes a label map, compressed, in the smallest unsigned type that holds it; atomically. Returns the file that was written.

    Args:
        path: Its ending chooses the format, changed where `label_ending` says so: ``.jpg`` becomes ``.png``, ``.mhd`` ``.mha``.
        array: ``(Z, Y, X)`` or ``(Y, X)``, integers >= 0.
        geometry: Of the image it belongs to: what ITK reads from the label map is exactly that (NIfTI and MetaImage bit by bit).

    Raises:
        ValueError: Unknown ending, wrong shape, negative values, or values that the format cannot hold.
    """
    path = Path(path)
    if ending_of(path):
        path = path.with_name(stem_of(path) + label_ending(ending_of(path)))
    if array.shape != geometry.shape or array.dtype.kind not in "iub":
        raise ValueError(f"{path}: expected integer labels of shape {geometry.shape}, got {array.dtype} of shape {array.shape}")
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0 or high >= 2**32:
        raise ValueError(f"{path}: expected label values between 0 and {2**32 - 1}, got {low} to {high}")
    kind = np.uint8 if high < 2**8 else np.uint16 if high < 2**16 else np.uint32
    largest = {".bmp": 2**8, ".png": 2**16, ".gipl": 2**16}.get(ending_of(path), 2**32)
    if high >= largest:
        raise ValueError(f"{path}: {ending_of(path)} holds label values below {largest}, got {high}; use .tif or a medical format")
    return _write(path, array.astype(kind, copy=False), geometry, write)


def write_image(path: Path, array: np.ndarray, geometry: Geometry, *, write: Writer = atomic_write) -> Path:
    """Writes an image ``(C, Z, Y, X)`` or ``(C, Y, X)`` in its own number type, compressed, atomically.

    Raises:
        ValueError: Unknown ending, or a shape that is not that of `geometry`.
    """
    path = Path(path)
    if array.shape[1:] != geometry.shape:
        raise ValueError(f"{path}: expected an image of shape (C, {geometry.shape}), got {array.shape}")
    return _write(path, array, geometry, write)


def _read(path: Path, nifti_geometry: str | None = None, *, warn: bool = True) -> Image:
    """Array ``(C, ...)`` in the file's own number type, every byte of it verified as far as its format allows."""
    if _is_dicom(path):
        array, geometry = dicom.read_volume(path)
        return Image(array[None], geometry, str(path))
    if _is_nifti(path):
        layout = read_layout(path)
        geometry = header_geometry(path, layout, nifti_geometry, warn=warn)
        return Image(read_voxels(layout), geometry, str(path))
    reader = _header(path)
    array = _decoded(path, reader)
    return Image(array, _geometry(path, reader, array.ndim - 1), str(path))


def _decoded(path: Path, reader: sitk.ImageFileReader) -> np.ndarray:
    """Array of a file that is neither DICOM nor NIfTI."""
    if ending_of(path) in raster_headers.FORMATS:
        return _read_raster(path, reader)
    check_picture(path)
    array = _execute(path, reader)
    return array[: picture_channels(path, len(array))] if ending_of(path) in PICTURES and len(array) > 1 else array


def _read_raster(path: Path, reader: sitk.ImageFileReader) -> np.ndarray:
    """Array of a MetaImage or NRRD file; ITK reads, after its stream was verified, what it arranges otherwise than in the file."""
    stored = raster_headers.read_stored(path)
    array, size, components = stored.read(path), reader.GetSize(), reader.GetNumberOfComponents()
    if stored.sizes != (size if components == 1 else (components, *size)) or len(size) > (3 if components > 1 else 4):
        return _execute(path, reader)
    return np.moveaxis(array, -1, 0) if components > 1 else array if len(size) == 4 else array[None]


def _execute(path: Path, reader: sitk.ImageFileReader) -> np.ndarray:
    try:
        return from_sitk(reader.Execute(), str(path)).array
    except RuntimeError as error:
        raise ValueError(f"{path}: cannot be read: {_last_line(error)}") from error


def _without_non_finite(array: np.ndarray, source: str) -> np.ndarray:
    """The one rule for voxels that are NaN or infinite, in every format: they are read as 0, with a warning; all of them are an error."""
    finite = np.isfinite(array)
    if finite.all():
        return array
    if not finite.any():
        raise ValueError(f"{source}: expected an image, found only voxels that are NaN or infinite")
    bad = array.size - np.count_nonzero(finite)
    log.warning(
        *("%s: %d of %d voxels are NaN or infinite; they are read as 0", source, bad, array.size),
        extra=one_of_many("images with voxels that are NaN or infinite"),
    )
    return np.where(finite, array, array.dtype.type(0))


def _is_nifti(path: Path) -> bool:
    return nifti_header.is_nifti(path) and _is_there(path)


def _is_there(path: Path) -> bool:
    if not path.is_file():
        raise ValueError(f"{path}: expected an image file, found nothing")
    return True


def _is_dicom(path: Path) -> bool:
    return path.is_dir() or dicom.is_series(path) or (not ending_of(path) and dicom.is_dicom_file(path))


def _header(path: Path, *, crooked: bool = False) -> sitk.ImageFileReader:
    """ITK's reader of a file whose header was read and checked; `crooked` passes axes that are not orthonormal, for their repair."""
    ending = ending_of(path)
    if _is_there(path) and not ending:
        raise ValueError(f"{path}: expected a file that ends in one of {', '.join(ENDINGS)} or a folder with a DICOM series")
    if ending in raster_headers.FORMATS:
        raster_headers.read_stored(path)  # names what is wrong; ITK guesses
        if not crooked:
            raster_headers.check_axes(path)
    reader = _itk_reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        is_grey_with_alpha = ending == ".png" and "Unknown PixelType" in str(error)
        reason = "grey values with alpha; save it without alpha" if is_grey_with_alpha else _last_line(error)
        raise ValueError(f"{path}: cannot be read: {reason}") from error
    return reader


def _itk_reader(path: Path) -> sitk.ImageFileReader:
    reader, ending = sitk.ImageFileReader(), ending_of(path)
    reader.SetFileName(str(path))
    if ending in _READERS and not path.name.endswith(ending):  # ITK does not know endings in capitals
        reader.SetImageIO(_READERS[ending])
    return reader


def _place(path: Path, reader: sitk.ImageFileReader, axes: int) -> Geometry:
    """The geometry that a header says, whether it can be one or not."""
    shape = tuple(reader.GetSize()[:axes][::-1])
    matrix = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:axes, :axes]
    return Geometry(shape, reader.GetSpacing()[:axes][::-1], reader.GetOrigin()[:axes], tuple(matrix.ravel().tolist()))


def _geometry(path: Path, reader: sitk.ImageFileReader, axes: int) -> Geometry:
    """The geometry by the header and the file beside a picture, if it is one."""
    shape = tuple(reader.GetSize()[:axes][::-1])
    if ending_of(path) in PICTURES:
        spacing, directions = sidecar_spacing(path, axes, stem_of(path)), tuple(np.eye(axes).ravel().tolist())
        return Geometry(shape, spacing or (1.0,) * axes, (0.0,) * axes, directions, oriented=False, has_spacing=spacing is not None)
    geometry = _place(path, reader, axes)
    matrix = np.array(geometry.direction).reshape(geometry.dim, geometry.dim)
    is_valid = np.isfinite([*geometry.spacing, *geometry.origin, *geometry.direction]).all() and min(geometry.spacing) > 0
    if not is_valid or abs(np.linalg.det(matrix)) < 1e-3:
        raise ValueError(f"{path}: cannot be read: expected a positive spacing, finite origin and invertible direction, found {geometry}")
    check_orthonormal(path, matrix)
    return geometry


def _write(path: Path, array: np.ndarray, geometry: Geometry, write: Writer) -> Path:
    ending = ending_of(path)
    if not _writable(ending, geometry.dim):
        raise ValueError(f"{path}: an image of {geometry.dim} axes cannot be written there; expected .nii.gz, .nii, .nrrd, .mha or .tif")
    image = to_sitk(array, geometry)
    with write(path) as partial, explained_write_errors(path, partial=partial, size=array.nbytes):
        if nifti_header.is_nifti(path):
            _write_nifti(image, partial, geometry)
        else:
            sitk.WriteImage(image, str(partial), useCompression=True)
    if ending in PICTURES and geometry.has_spacing:
        write_json(sidecar_of(path), {"spacing": geometry.spacing}, write=write, digest=False)
    return path


def _writable(ending: str, dim: int) -> bool:
    """Whether one file of that ending holds an image of `dim` axes."""
    if dim == 2:
        return ending in ENDINGS and ending not in (".mhd", ".gipl")
    return ending in ENDINGS and ending != ".mhd" and (ending not in PICTURES or ending in (".tif", ".tiff"))


def _write_nifti(image: sitk.Image, path: Path, geometry: Geometry) -> None:
    """Writes with the source's own orientation fields where these still describe `geometry`, with ITK's otherwise."""
    raw = path.with_name(f"{path.name}-raw.nii")
    try:
        with explained_write_errors(path, partial=raw):
            sitk.WriteImage(image, str(raw), useCompression=False)
        nifti_header.copy_with_orientation(raw, path, geometry.nifti)
        if geometry.nifti and read_geometry(path) != geometry:
            nifti_header.copy_with_orientation(raw, path, ())
    finally:
        raw.unlink(missing_ok=True)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
