"""Voxels and geometry of NIfTI-1 files, which ITK reads without verifying checksums, filling what is missing, and with 0 for NaN."""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.shown_text import one_of_many
from ..schema import Geometry
from . import nifti_header
from .nifti_geometry import MOST_SKEW, ResolvedForms, resolve_forms
from .raster_checks import NotOrthonormalError
from .streams import Stream, check_size, read_stream

log = logging.getLogger(__name__)

_DIM, _INTENT, _TYPE, _OFFSET, _SLOPE = 40, 68, 70, 108, 112
_VECTORS = 1007
"""Intent of files whose fifth axis is the components of a voxel."""
_FIRST_VOXEL = 352
_NUMBERS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOURS = {128: 3, 2304: 4}
_OTHERS = {1: "single bits", 32: "complex numbers", 1536: "128-bit numbers", 1792: "complex numbers", 2048: "complex numbers"}


@dataclass(frozen=True)
class NiftiLayout:
    """How the voxels of a NIfTI-1 file are stored.

    Attributes:
        size: Voxels along x, y, z; two numbers for pictures.
        n_channels: Along a further axis.
        n_colours: Interleaved bytes of a voxel in colour files; 1 in others.
        kind: Of the stored numbers, with their byte order.
        slope: With `intercept` the line that leads to the values; None where the numbers are the values.
    """

    size: tuple[int, ...]
    n_channels: int
    n_colours: int
    kind: np.dtype
    slope: float | None
    intercept: float
    stream: Stream

    @property
    def channels(self) -> int:
        """Channels of the image, without alpha."""
        return self.n_channels * min(self.n_colours, 3)


def read_layout(path: Path) -> NiftiLayout:
    """Reads how a file is stored from its header; raises a ValueError for what is invalid, not supported, or more than the file holds."""
    header = nifti_header.read_header(path)
    order = nifti_header.byte_order(header)
    (intent,) = struct.unpack_from(order + "h", header, _INTENT)
    size, n_channels = _axes(path, struct.unpack_from(order + "8h", header, _DIM), is_vectors=intent == _VECTORS)
    code, bits = struct.unpack_from(order + "2h", header, _TYPE)
    if code not in _NUMBERS and code not in _COLOURS:
        raise _wrong(path, "voxels of integers, real numbers or colours", _OTHERS.get(code, f"number type {code}"))
    n_colours = _COLOURS.get(code, 1)
    kind = np.dtype(order + _NUMBERS.get(code, "u1"))
    if bits != kind.itemsize * n_colours * 8:
        raise _wrong(path, f"{kind.itemsize * n_colours * 8} bits a voxel for number type {code}", f"{bits} (bitpix)")
    slope, intercept = _scale(path, *struct.unpack_from(order + "2f", header, _SLOPE))
    n_bytes = math.prod(size) * n_channels * n_colours * kind.itemsize
    packed = nifti_header.is_packed(path)
    start = _start(path, struct.unpack_from(order + "f", header, _OFFSET)[0])
    stream = Stream(path, start, "gzip" if packed else "raw", n_bytes, is_whole_file_packed=packed)
    check_size(stream)
    return NiftiLayout(size, n_channels, n_colours, kind, None if n_colours > 1 else slope, intercept, stream)


def read_voxels(layout: NiftiLayout) -> np.ndarray:
    """Values ``(C, Z, Y, X)`` or ``(C, Y, X)`` in the file's number type; float32 with a scale factor (float64 where stored so)."""
    stored = read_stream(layout.stream).view(layout.kind)
    shape = layout.size[::-1]
    if layout.n_colours > 1:
        colours = np.moveaxis(stored.reshape(layout.n_channels, *shape, layout.n_colours), -1, 1)[:, :3]
        return np.ascontiguousarray(colours.reshape(-1, *shape))
    array = stored.reshape(layout.n_channels, *shape)
    if layout.slope is None:
        return array.astype(layout.kind.newbyteorder("="), copy=False)
    values = np.empty(array.shape, np.float64 if layout.kind.kind == "f" and layout.kind.itemsize == 8 else np.float32)
    for channel, target in zip(array, values, strict=True):
        for index, plane in enumerate(channel):
            target[index] = plane.astype(np.float64) * layout.slope + layout.intercept
    return values


def header_forms(path: Path, layout: NiftiLayout, wanted: str | None) -> ResolvedForms:
    """What a file's header says about its place, and what the rule takes of it (`nifti_geometry`); a ValueError where that is nothing."""
    try:
        return resolve_forms(nifti_header.read_orientation(path), layout.size, wanted)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read: {error}, in its NIfTI header") from error


def header_geometry(path: Path, layout: NiftiLayout, wanted: str | None, *, warn: bool = False) -> Geometry:
    """The geometry by the rule; with `warn` a contradiction that it settles is said.

    Raises:
        ValueError: The header has no valid geometry, is ambiguous without `wanted`, or its axes are not orthogonal.
    """
    forms = header_forms(path, layout, wanted)
    if forms.reading is None:
        raise ValueError(f"{path}: its header contradicts itself: {forms}; say with --nifti-geometry sform or qform which is true")
    reading, axes, fields = forms.reading, len(layout.size), nifti_header.read_orientation(path)
    skew = reading.skew(axes)
    if skew > MOST_SKEW:
        raise NotOrthonormalError(
            f"{path}: expected orthogonal image axes, found a direction that is not orthonormal (largest cosine between two axes"
            f" {skew:.2g}); autoseg_check --fix writes a corrected copy"
        )
    if forms.converted and warn:
        log.warning(
            *("%s: its header is in %s, which are converted: %s", path, forms.converted, reading),
            extra=one_of_many("headers in other units than mm"),
        )
    if forms.contradiction and warn:
        log.warning(
            *("%s: its header contradicts itself: %s; taken: %s", path, forms, reading.name),
            extra=one_of_many("headers that contradict themselves"),
        )
    kept = () if forms.contradiction or min(fields[2 : 2 + axes]) <= 0 else fields  # a label map repeats no contradiction
    direction, oriented = reading.direction_of(axes)
    place = reading.spacing[:axes][::-1], reading.origin[:axes], tuple(direction.ravel().tolist())
    return Geometry(layout.size[::-1], *place, kept, oriented=oriented)


def _axes(path: Path, dim: tuple[int, ...], *, is_vectors: bool) -> tuple[tuple[int, ...], int]:
    """Size of the spatial axes, and the channels; of pictures with channels, as ITK writes them, the third and fourth axis are 1."""
    if not 2 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise _wrong(path, "2 to 7 axes of at least one voxel", f"dim {list(dim)}")
    further = [n for n in dim[4 : dim[0] + 1] if n > 1]
    if len(further) > 1:
        raise _wrong(path, "2 or 3 spatial axes and one of channels", f"{dim[0]} axes: {list(dim[1 : dim[0] + 1])}")
    n_axes = 2 if is_vectors and dim[0] == 5 and dim[3] == dim[4] == 1 else min(dim[0], 3)
    return tuple(dim[1 : n_axes + 1]), (further or [1])[0]


def _scale(path: Path, slope: float, intercept: float) -> tuple[float | None, float]:
    """A slope of 0 or NaN means that there is none (as in NIfTI's own library)."""
    if slope == 0 or (math.isnan(slope) and (math.isnan(intercept) or intercept == 0)) or (slope, intercept) == (1, 0):
        return None, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise _wrong(path, "a finite scale of the values", f"scl_slope {slope} and scl_inter {intercept}")
    return slope, intercept


def _start(path: Path, offset: float) -> int:
    if offset == 0:
        return _FIRST_VOXEL
    if not math.isfinite(offset) or offset != int(offset) or offset < nifti_header.HEADER_SIZE:
        raise _wrong(path, f"the first voxel at byte {_FIRST_VOXEL} or later", f"vox_offset {offset}")
    return int(offset)


def _wrong(path: Path, expected: str, found: str) -> ValueError:
    return ValueError(f"{path}: cannot be read: expected {expected}, found {found} in its NIfTI header")
