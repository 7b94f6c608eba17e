"""What a search for new images gives: cases, what is no image, and what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..schema import Case


@dataclass(frozen=True)
class FoundCases:
    """The images to segment in a folder or file; nothing that lies there is left out without a word.

    Attributes:
        cases: In natural order of their names.
        skipped: What is no image of a case (a localizer, a segmentation, a report): item -> reason. No fault; to be said.
        failed: What should be a case and cannot be one (a slice is missing or damaged): case -> reason. The other cases go on, and the
            command ends as one with failed cases.
    """

    cases: tuple[Case, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def named_cases(images: Mapping[str, tuple[Path, ...]], *, nifti_geometry: str | None = None) -> tuple[tuple[Case, ...], dict[str, str]]:
    """Cases of images by name, and those whose name cannot be that of a file, with the reason: one of them does not stop the others."""
    cases, failed = [], {}
    for name, paths in images.items():
        try:
            cases.append(Case(name, paths, None, name, nifti_geometry=nifti_geometry))
        except ValueError as error:
            failed[name] = f"{', '.join(map(str, paths))}: {error}"
    return tuple(cases), failed
