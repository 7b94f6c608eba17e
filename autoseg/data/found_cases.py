"""What a search for new images gives: cases, what is no image, and what cannot be read."""

from __future__ import annotations

from dataclasses import dataclass, field

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
