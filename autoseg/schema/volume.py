"""Geometry of images, images, and the trace of preprocessing that leads back to the file."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .values import check_axes, check_permutation, check_spacing, expect

Box = tuple[tuple[int, int], ...]
"""Half open, one pair an axis."""


@dataclass(frozen=True)
class Geometry:
    """Geometry of an image: the position of its voxels in space.

    Attributes:
        shape: Voxels per axis, array order ``(Z, Y, X)`` or ``(Y, X)``.
        spacing: Millimetres per voxel, array order.
        origin: ITK's origin ``(x, y, z)``, verbatim.
        direction: ITK's direction cosines, row-major, verbatim.
        nifti: Orientation fields of the NIfTI header it came from (`autoseg.data.nifti_header`), empty for other formats. ITK rounds
            them when it writes; with these a label map gets its image's header to the last digit.
        oriented: False where the orientation in the patient is unknown (pictures, bare arrays) and `direction` is made up.
        has_spacing: False where nobody knows the spacing (pictures without one in a file beside them) and 1 stands for it.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    nifti: tuple[float, ...] = field(default=(), compare=False, repr=False)
    oriented: bool = field(default=True, compare=False, repr=False)
    has_spacing: bool = field(default=True, compare=False, repr=False)

    @property
    def dim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.shape)

    @property
    def lateral_axis(self) -> int:
        """Array axis that runs most nearly from the patient's right to left (ITK's world x)."""
        world_x = np.abs(np.asarray(self.direction, float).reshape(self.dim, self.dim)[0])
        return self.dim - 1 - int(np.argmax(world_x))


@dataclass(frozen=True)
class Image:
    """Voxels of an image with their geometry.

    Attributes:
        array: ``(C, Z, Y, X)`` or ``(C, Y, X)`` for images, without ``C`` for label maps.
        geometry: Of the spatial axes.
        source: File or folder it was read from, for messages.
    """

    array: np.ndarray
    geometry: Geometry
    source: str = "array"


@dataclass(frozen=True)
class Trace:
    """Record of what preprocessing did to a case, to undo it exactly.

    All but `geometry` are in transposed axis order; 2D images count as one slice (three numbers, first of shape 1).

    Attributes:
        geometry: Of the file.
        transpose: Order in which the file's spatial axes were arranged: as in `Plan`, after turning the file to the plan's orientation.
        shape_before_crop: After transposing.
        crop: Box kept, in transposed (and reversed) voxels.
        shape: After resampling: the shape of the stored array and of the logits.
        spacing: Millimetres after resampling; two numbers for 2D images.
        flips: Transposed axes that were reversed, to turn the file to the plan's orientation.
    """

    case: str
    geometry: Geometry
    transpose: tuple[int, ...]
    shape_before_crop: tuple[int, ...]
    crop: Box
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    flips: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        dim = self.geometry.dim
        check_permutation(f"{self.case}: transpose", self.transpose, [dim])
        check_axes(f"{self.case}: flips", self.flips, dim)
        check_spacing(f"{self.case}: spacing", self.spacing, [dim])
        check_spacing(f"{self.case}: geometry: spacing", self.geometry.spacing, [dim])
        for name, shape in (("shape", self.shape), ("shape_before_crop", self.shape_before_crop)):
            expect(len(shape) == 3 and min(shape) > 0, f"{self.case}: {name}", "three numbers above 0", shape)
        inside = [0 <= start < stop <= size for (start, stop), size in zip(self.crop, self.shape_before_crop, strict=False)]
        expect(len(self.crop) == 3 and all(inside), f"{self.case}: crop", f"a box in {self.shape_before_crop}", self.crop)
