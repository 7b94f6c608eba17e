"""Post-processing of label maps, organ by organ: small components removed, only the largest kept, holes filled.

Two voxels of an organ belong to one component where they share a face, an edge or a corner; a hole is background that no path over faces
connects to the outside of the organ's box. What is removed becomes background. Which organ gains from what is decided on the
cross-validation (`autoseg.selection.postprocessing_choice`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..preprocessing.cropping import enclosed
from ..runtime.registry import unknown_name_error
from ..schema import Labels, PostProcessing

NOTHING = "nothing"
"""What post-processing without a step is called."""


@dataclass(frozen=True, eq=False)
class Components:
    """The connected parts of a mask: at each voxel the part's number, int32, 0 outside; and the voxels of each, 0 for what is outside."""

    parts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> Components:
        """The parts of a mask ``(Z, Y, X)`` or ``(Y, X)`` bool; voxels that touch in a corner belong together."""
        parts, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim), output=np.int32)
        sizes = np.bincount(parts.reshape(-1), minlength=count + 1)
        sizes[0] = 0
        return cls(parts, sizes)

    def remaining(self, postprocessing: PostProcessing, voxel_mm3: float) -> np.ndarray:
        """The mask after post-processing, bool: first the parts that are large enough, then the largest of them.

        Of parts of equal size the one that comes first in the array counts as larger.
        """
        large = (self.sizes > 0) & (self.sizes * voxel_mm3 >= postprocessing.min_volume_mm3)
        if postprocessing.components is not None:
            order = np.argsort(-np.where(large, self.sizes, 0), kind="stable")
            large[order[postprocessing.components :]] = False
        return large[self.parts]


def apply_postprocessing(
    label_map: np.ndarray, labels: Labels, postprocessing: Mapping[str, PostProcessing], spacing_mm: Sequence[float]
) -> np.ndarray:
    """A label map with the post-processing of its organs.

    First every organ loses components, then holes are filled, where nothing else lies in them: another organ is never painted over.

    Args:
        label_map: ``(Z, Y, X)`` or ``(Y, X)``, internal values (`autoseg.schema.conventions`).
        labels: Of the map.
        postprocessing: By organ; the others stay as they are.
        spacing_mm: Of the voxels, array order. In 2D images `PostProcessing.min_volume_mm3` is an area in square millimetres.

    Returns:
        A new map of the same shape and type; the map itself where there is nothing to do.

    Raises:
        ValueError: An organ is unknown, the spacing has another number of axes, or the organs overlap: what is removed from a region
            belongs to other regions as well, and no label value says which of them it should stay in.
    """
    if not postprocessing:
        return label_map
    check_postprocessable(labels, postprocessing)
    if len(spacing_mm) != label_map.ndim:
        raise ValueError(f"post-processing: expected a spacing of {label_map.ndim} numbers, got {tuple(spacing_mm)}")
    result, voxel = label_map.copy(), math.prod(spacing_mm)
    boxes = ndimage.find_objects(np.maximum(label_map, 0), max_label=len(labels.base_values))
    values = zip(labels.names, labels.internal_members, strict=True)
    wanted = [(boxes[value - 1], value, postprocessing[name]) for name, (value,) in values if name in postprocessing]
    wanted = [(box, value, steps) for box, value, steps in wanted if box is not None]
    for box, value, steps in wanted:
        mask = result[box] == value
        result[box][mask & ~Components.of(mask).remaining(steps, voxel)] = 0
    for box, value, steps in wanted:
        if steps.fill_holes:
            result[box][enclosed(result[box] != value) & (result[box] == 0)] = value
    return result


def check_postprocessable(labels: Labels, organs: Sequence[str] | Mapping[str, PostProcessing]) -> None:
    """Refuses what `apply_postprocessing` cannot do: raises ValueError."""
    for name in organs:
        if name not in labels.names:
            raise unknown_name_error("organ to post-process", name, labels.names)
    if labels.regions and organs:
        raise ValueError(
            f"post-processing of {', '.join(organs)}: expected organs that do not overlap, found regions, where a voxel that is taken "
            "from one belongs to others as well"
        )


ASKED = "as asked for"
"""Why of a post-processing that a user forced."""


def requested_steps(words: Sequence[str], organs: Sequence[str]) -> dict[str, PostProcessing]:
    """Post-processing by organ as a user asks for it; one without a step for an organ that is to stay as it is.

    Args:
        words: ``largest`` (the largest component of every organ is kept), a number (so many of the largest), or ``none``; ``kidney=2`` says
            it of one organ, which goes before what is said of all.
        organs: That there are.

    Raises:
        ValueError: A word that says nothing of this, or twice something of one organ, or an unknown organ.
    """
    said: dict[str, PostProcessing] = {}
    for word in words:
        organ, equals, what = word.rpartition("=")
        if equals and organ not in organs:
            raise unknown_name_error("organ to post-process", organ, organs)
        if organ in said:
            raise ValueError(f"post-processing: expected one word about {organ or 'all organs'}, got {' '.join(words)}")
        said[organ] = _of_word(what, word)
    return {organ: steps for organ in organs if (steps := said.get(organ, said.get(""))) is not None}


def forced(words: Sequence[str], labels: Labels, chosen: Mapping[str, PostProcessing]) -> dict[str, PostProcessing]:
    """The chosen post-processing by organ, but for the organs that a user's words (`requested_steps`) are about.

    Raises:
        ValueError: As `requested_steps` and `check_postprocessable`.
    """
    wanted = {organ: steps for organ, steps in {**chosen, **requested_steps(words, labels.names)}.items() if describe(steps) != NOTHING}
    check_postprocessable(labels, wanted)
    return wanted


def _of_word(what: str, word: str) -> PostProcessing:
    count = {"none": None, "largest": 1}.get(what, int(what) if what.isdecimal() else 0)
    if count == 0:
        raise ValueError(
            f"post-processing: expected none, largest, or a number of components, also of one organ as in kidney=2; got {word!r}"
        )
    return PostProcessing(components=count, why=ASKED)


def describe(postprocessing: PostProcessing, *, dim: int = 3) -> str:
    """The steps in words, in their order; of images of `dim` axes."""
    steps = []
    if postprocessing.min_volume_mm3 > 0:
        steps.append(f"components below {size_in_words(postprocessing.min_volume_mm3, dim=dim)} removed")
    if postprocessing.components is not None:
        several = f"{postprocessing.components} largest components" if postprocessing.components > 1 else "largest component"
        steps.append(f"only the {several} kept")
    if postprocessing.fill_holes:
        steps.append("holes filled")
    return ", ".join(steps) or NOTHING


def size_in_words(size_mm: float, *, dim: int = 3) -> str:
    """A volume in mm³ to three digits, in ml from 1 ml on; in 2D an area in mm², in cm² from 10 cm² on."""
    large = (size_mm / 1000, "ml") if dim == 3 else (size_mm / 100, "cm²")
    value, unit = large if size_mm >= 1000 else (size_mm, "mm³" if dim == 3 else "mm²")
    return f"{value:.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"
