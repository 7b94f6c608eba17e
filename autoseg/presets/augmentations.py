"""Augmentation of the papers: probabilities and ranges, as options of `schema.training_options.AugmentationOptions`.

What a paper does not draw is switched off, flips too: a model that learns without them is validated and predicts without mirrored passes.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..schema.training_options import AugmentationOptions


def _only(**options: Any) -> dict[str, Any]:
    """These options, and everything else switched off."""
    off = {item.name: 0.0 for item in fields(AugmentationOptions) if item.name.endswith("_probability") and "_channel_" not in item.name}
    return off | options


def _rotations(degrees: float) -> dict[str, float]:
    """In every patch, of any shape."""
    return {
        "rotation_probability": 1.0,
        "rotation_degrees": degrees,
        "planar_rotation_degrees": degrees,
        "elongated_rotation_degrees": degrees,
    }


CONZE = _only(
    **_rotations(15.0),
    scale_probability=1.0,
    scale_range=(0.8, 1.2),
    shear_probability=1.0,
    shear_degrees=10.0,
    translation_probability=1.0,
    translation_share=0.1,
)
"""Scaling, rotation, shearing and shifting of every slice; the paper tells no ranges."""

FANG = _only(mirror_probability=0.5)
"""Random crops only, and flips of both axes of a slice, each with probability 1/2: left out in the paper, done by its code."""

THALER = _only(
    **_rotations(20.0),
    scale_probability=1.0,
    scale_range=(0.8, 1.2),
    axis_scale_range=(0.9, 1.1),
    translation_probability=1.0,
    translation_voxels=10.0,
    translation_share=0.0,
    elastic_probability=1.0,
    elastic_points=8,
    elastic_voxels=7.5,
    offset_probability=1.0,
    offset_limit=0.2,
    brightness_probability=1.0,
    brightness_range=(0.8, 1.2),
)
"""Translation, rotation, scale, elastic deformation, intensity shift and scale of every image. The paper tells no ranges; these are of the
group's published code of the same network for hearts, at 2 mm: 20 mm, 0.35 rad, 0.2 and 0.1 an axis, 8x8x8 nodes and 15 mm, 0.2."""

ROTH = _only(
    **_rotations(5.0),
    translation_probability=1.0,
    translation_voxels=20.0,
    translation_share=0.0,
    elastic_probability=1.0,
    elastic_voxels=4.0,
    elastic_spacing=32.0,
)
"""Section 2.3: elastic deformations (uniform, at most 4 voxels, grid of 32), rotations of 5 degrees, translations of 20 voxels, always."""

CRESPI = _only(
    **(_rotations(15.0) | {"rotation_probability": 0.5}),
    elastic_probability=0.5,
    elastic_voxels=4.0,
    elastic_spacing=32.0,
    distortion_probability=0.5,
    distortion_steps=5,
    distortion_limit=0.3,
)
"""Grid distortion, random rotations and elastic transformation; the paper tells neither probabilities nor ranges."""
