"""CT windows of organs: usual ones by name, and those of ``dataset.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runtime.strict_json import shown
from ..schema import Labels
from .label_names import parse_by_organ

Window = tuple[float, float]
"""Width and level in Hounsfield units."""

SOFT_TISSUE, BONE, BRAIN = (400.0, 50.0), (1800.0, 400.0), (80.0, 40.0)

MAX_HU = 1e6
"""No width or level is larger."""

WINDOWS: dict[str, Window] = {
    # Crespi et al. 2023, table I
    "lung": (1500.0, -600.0),
    "heart": (350.0, 50.0),
    "esophagus": (300.0, 80.0),
    "oesophagus": (300.0, 80.0),
    "trachea": (1200.0, -440.0),
    "spinal cord": (600.0, 0.0),
    # Usual in radiology (Radiopaedia, "Windowing (CT)"). Abdominal organs get the window of soft tissue: the narrower one that is used to
    # look for lesions of the liver would clip what contrast medium enhances.
    **dict.fromkeys(("liver", "spleen", "pancreas", "kidney", "stomach", "gallbladder", "adrenal", "duodenum", "colon"), SOFT_TISSUE),
    **dict.fromkeys(("bowel", "bladder", "prostate", "uterus", "aorta", "cava", "muscle"), SOFT_TISSUE),
    **dict.fromkeys(("bone", "rib", "vertebra", "vertebrae", "femur", "pelvis", "hip", "sacrum", "sternum", "mandible", "skull"), BONE),
    **dict.fromkeys(("brain", "cerebrum", "cerebellum", "brainstem"), BRAIN),
    "mediastinum": (350.0, 50.0),
}
"""Organ to its usual window."""


def parse_windows(info: Mapping[str, Any], labels: Labels, file: Path) -> dict[str, Window]:
    """The ``windows`` entry of a ``dataset.json``: organ to width and level in HU; a ValueError where it is anything else."""
    return parse_by_organ(info.get("windows"), labels, f"{file}: windows", '{"liver": [400, 50]}', check_window)


def check_window(numbers: Any, source: str) -> Window:
    """Returns width and level of a window; a ValueError that begins with `source` where it is not a positive width and a level."""
    good = isinstance(numbers, (list, tuple)) and len(numbers) == 2
    good = good and all(isinstance(one, (int, float)) and not isinstance(one, bool) and abs(one) < MAX_HU for one in numbers)
    if not good or numbers[0] <= 0:
        raise ValueError(f"{source}: expected width and level in HU such as [400, 50], the width above 0, found {shown(numbers)}")
    return float(numbers[0]), float(numbers[1])


def find_window(organ: str, declared: Mapping[str, Window]) -> Window | None:
    """Finds the window of an organ: the one the dataset declares, else the usual one by the words of its name, else None."""
    if organ in declared:
        return declared[organ]
    words = _words(organ)
    fitting = [name for name in WINDOWS if set(name.split()) <= words or name.replace(" ", "") in words]
    return WINDOWS[max(fitting, key=len)] if fitting else None


def common_window(organs: Sequence[str], declared: Mapping[str, Window]) -> Window:
    """Finds the one window of all these organs; a ValueError says which organ has no known window, or which windows differ."""
    found = {organ: window for organ in organs if (window := find_window(organ, declared)) is not None}
    without = [organ for organ in organs if organ not in found]
    if without:
        raise ValueError(
            f'--window auto: no window is known for {", ".join(without)}; give one in dataset.json ("windows": {{"{without[0]}": '
            f"[WIDTH, LEVEL]}}) or with --window WIDTH LEVEL. Known by name: {', '.join(WINDOWS)}"
        )
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{organ} {width:g}/{level:g}" for organ, (width, level) in found.items())
        raise ValueError(f"--window auto: a model has one window, these differ ({listed}); give --window WIDTH LEVEL or fewer --organs")
    return next(iter(found.values()))


def _words(organ: str) -> set[str]:
    """The words of a name in lower case, and each without the s of a plural."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", organ)
    words = set(re.findall(r"[^\W_]+", spaced.lower()))
    return words | {word.removesuffix("s") for word in words}
