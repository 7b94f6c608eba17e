"""Sampling of training patches: which case, which place, and the voxels there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

from ..inference.tiling import axis_starts
from ..schema import Box, Configuration
from ..schema.conventions import ANNOTATED, OUTSIDE

if TYPE_CHECKING:
    from ..preprocessing.storage import StoredCase


@dataclass(frozen=True)
class Sample:
    """One patch to read.

    Attributes:
        case: Its name.
        box: On the stored array's (Z, Y, X), half open; may reach outside. One slice thick for 2D.
    """

    case: str
    box: Box


def is_foreground_slot(index: int, batch_size: int, share: float, *, number: int = 0) -> bool:
    """True for the last samples of a batch, those that are centred on an organ (one of two, three of nine).

    A batch of one has no last sample to spare: there the share is kept over the batches, counted by their `number` in the stream.
    """
    if batch_size == 1:
        return int((number + 1) * share) > int(number * share)
    return index >= round(batch_size * (1 - share))


def draw_sample(
    rng: np.random.Generator,
    cases: Mapping[str, StoredCase],
    configuration: Configuration,
    *,
    foreground: bool,
    load_size: Sequence[int],
    organ_slices: bool = False,
) -> Sample:
    """Draws a case, with replacement, and a patch in it.

    Without `foreground` patches lie anywhere, as the tiles of prediction do (with an ignore label: about any annotated voxel). With it an
    organ is drawn among those present in the case and the patch centred on one of its voxels; only the lower bound keeps it in the image,
    so patches at the upper border may look beyond it. Cases without any organ are sampled anywhere.

    Args:
        cases: By name; of each the shape and the organs' locations are used.
        load_size: Voxels to read, per axis of the patch: the patch, grown or shrunk about its centre.
        organ_slices: Without `foreground` and for slices: draw an organ among those of the case and a slice that shows it, each of them
            as likely, and any place in it (Fang & Yan, IEEE TMI 39, 2020).
    """
    names = sorted(cases)
    name = names[int(rng.integers(len(names)))]
    case = cases[name]
    center = _draw_center(rng, case.locations, foreground)
    starts = _draw_corner(rng, case.image.shape[1:], _as_volume(configuration.patch_size), center)
    if organ_slices and not foreground and (voxels := _draw_organ(rng, case.locations)) is not None:
        starts[0] = int(rng.choice(np.unique(voxels[:, 0])))
    box = []
    for start, p, size in zip(starts, _as_volume(configuration.patch_size), _as_volume(load_size), strict=True):
        start += p // 2 - size // 2
        box.append((start, start + size))
    return Sample(name, tuple(box))


def moved(sample: Sample, shift: Sequence[int]) -> Sample:
    """The same patch, read some voxels (an axis of the patch; empty means none) further on."""
    by = (0,) * (len(sample.box) - len(shift)) + tuple(shift)
    return Sample(sample.case, tuple((start + n, stop + n) for (start, stop), n in zip(sample.box, by, strict=True)))


def _draw_corner(rng: np.random.Generator, shape: Sequence[int], patch: Sequence[int], center: np.ndarray | None) -> list[int]:
    """First voxel of a patch per axis: around `center`, or anywhere; an axis shorter than the patch is padded on both sides alike.

    Anywhere means as the tiles of prediction lie, of which the first and the last of an axis always touch the volume's borders. If every
    first voxel were as likely as any other, the voxels at the border would be in one patch of hundreds, and in the corners in none, of a
    volume that is little larger than the patch; networks see organs there that nobody told them are none.
    """
    starts = []
    for axis, (n, p) in enumerate(zip(shape, patch, strict=True)):
        missing = max(0, p - n)
        lowest, highest = -((missing + 1) // 2), max(n - p, -(missing // 2))
        if center is not None:
            starts.append(max(lowest, int(center[axis]) - p // 2))
            continue
        beyond = _half_distance(n, p)
        starts.append(min(max(int(rng.integers(lowest - beyond, highest + beyond + 1)), lowest), highest))
    return starts


def _half_distance(size: int, patch: int) -> int:
    """Half of the distance of neighbouring tiles along an axis: what lies so far from a tile is nearer to it than to any other."""
    starts = axis_starts(size, patch) if size > patch > 1 else (0,)
    return round((starts[-1] - starts[0]) / (len(starts) - 1) / 2) if len(starts) > 1 else 0


def _as_volume(size: Sequence[int]) -> tuple[int, ...]:
    """Patch size on (Z, Y, X): a 2D patch is one slice."""
    return (1, *size) if len(size) == 2 else tuple(size)


def _draw_center(rng: np.random.Generator, locations: Mapping[str, np.ndarray], foreground: bool) -> np.ndarray | None:
    """A voxel (Z, Y, X) to centre on, or None for anywhere."""
    if foreground and (voxels := _draw_organ(rng, locations)) is not None:
        return voxels[int(rng.integers(len(voxels)))]
    # Any annotated voxel where there is no organ to choose.
    annotated = locations.get(ANNOTATED)
    return annotated[int(rng.integers(len(annotated)))] if annotated is not None and len(annotated) else None


def _draw_organ(rng: np.random.Generator, locations: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The voxels ``(N, 3)`` of one of the organs that the case has, each as likely; None where it has none."""
    # The first of a random order that is there at all: usually the only one that is read from disk.
    organs = sorted(key for key in locations if key != ANNOTATED)
    for index in rng.permutation(len(organs)):
        voxels = locations[organs[index]]
        if len(voxels):
            return voxels
    return None


def read_box(array: Any, box: Box, *, fill: float) -> np.ndarray:
    """The voxels of `box` on the last three axes; only what lies inside is read, the rest is `fill`.

    Args:
        array: ``(Z, Y, X)`` or ``(C, Z, Y, X)``, NumPy or blosc2.
        box: Half open, may reach outside.
    """
    return np.asarray(crop_and_pad_nd(array, [list(pair) for pair in box], fill))


def segmentation_of(stored: StoredCase) -> Any:
    """The labels of a preprocessed case, ``(Z, Y, X)`` int16 internal values, read as they are sliced.

    Raises:
        ValueError: The case has none.
    """
    if stored.segmentation is None:
        raise ValueError(f"case {stored.trace.case}: cannot be trained on, its preprocessed data holds no segmentation")
    return stored.segmentation


def read_patch(stored: StoredCase, box: Box, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads a patch of the image and its labels.

    Args:
        dim: 2 drops the slice axis.

    Returns:
        Image ``(C, *size)`` float32, 0 outside the volume, and labels ``(*size)`` int16, `OUTSIDE` there.

    Raises:
        ValueError: The case has no labels.
    """
    labels = read_box(segmentation_of(stored), box, fill=OUTSIDE).astype(np.int16, copy=False)
    image = read_box(stored.image, box, fill=0.0).astype(np.float32, copy=False)
    return (image[:, 0], labels[0]) if dim == 2 else (image, labels)
