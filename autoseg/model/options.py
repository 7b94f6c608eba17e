"""What a user asks of a stage, as far as later stages read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What a user may ask of the planner.

    Attributes:
        configurations: To preprocess; None means all of the plan but ``2.5d``.
        preset: ``default``, ``resenc_m``, ``resenc_l`` or ``resenc_xl``.
        memory_gb: Memory target; None means the preset's.
        spacing: Target spacing ``(Z, Y, X)`` in mm instead of the planned one.
        force_lowres: Plan a low resolution and a cascade even where the patch already sees enough.
        groups: Regular expression that finds the patient in a case's name.
        trust_files: Take files whose path and size are as recorded for unchanged, without reading them to verify their content.
        workers: Processes; None means as many as cores and memory allow.
    """

    configurations: tuple[str, ...] | None = None
    preset: str = "default"
    memory_gb: float | None = None
    spacing: tuple[float, ...] | None = None
    force_lowres: bool = False
    groups: str | None = None
    trust_files: bool = False
    workers: int | None = None
