"""Images to SimpleITK and back: order of axes, channels and geometry."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..schema import Geometry, Image


def from_sitk(image: sitk.Image, source: str = "SimpleITK image") -> Image:
    """An `Image` ``(C, Z, Y, X)`` or ``(C, Y, X)`` of the same number type; a fourth axis or components (ValueError: both) are channels."""
    if not isinstance(image, sitk.Image):
        raise ValueError(f"image: expected a path, a SimpleITK image, or an array with its spacing, got {type(image).__name__}")
    dim, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    axes = min(dim, 3)
    if dim > 4 or (dim == 4 and components > 1):
        raise ValueError(f"{source}: expected 2 or 3 spatial axes and one of channels, found {dim} axes of {components} components")
    array = sitk.GetArrayFromImage(image)
    if dim < 4:
        array = np.moveaxis(array, -1, 0) if components > 1 else array[None]
    matrix = np.array(image.GetDirection()).reshape(dim, dim)[:axes, :axes]
    geometry = Geometry(array.shape[1:], image.GetSpacing()[:axes][::-1], image.GetOrigin()[:axes], tuple(matrix.ravel().tolist()))
    return Image(array, geometry, source)


def to_sitk(array: np.ndarray, geometry: Geometry) -> sitk.Image:
    """A SimpleITK image of an array ``(Z, Y, X)`` or ``(Y, X)``, or of one with channels in front (several become components)."""
    with_channels = array.ndim == geometry.dim + 1
    several = with_channels and array.shape[0] > 1
    if with_channels:
        array = np.moveaxis(array, 0, -1) if several else array[0]
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=several)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image
