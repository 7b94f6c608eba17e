"""Other intensities than planned: CT windows by organ, and a configuration whose data is normalised by other schemes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .label_subsets import file_name
from .model import Configuration, Labels
from .naming import unknown
from .normalization import find_scheme, is_for_ct

Window = tuple[float, float]
"""Width and level in Hounsfield units."""

SOFT_TISSUE, BONE, BRAIN = (400.0, 50.0), (1800.0, 400.0), (80.0, 40.0)

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
"""Organ to the window in which it is usually looked at."""


def parse_windows(info: Mapping[str, Any], labels: Labels, file: Path) -> dict[str, Window]:
    """The ``windows`` entry of a ``dataset.json``: organ to width and level in HU.

    Raises:
        ValueError: It names what is no organ, or has other than a positive width and a level.
    """
    entry = info.get("windows") or {}
    if not isinstance(entry, dict):
        raise ValueError(f'{file}: windows: expected an object such as {{"liver": [400, 50]}}, found {entry!r}')
    windows = {}
    for organ, numbers in entry.items():
        if organ not in labels.names:
            raise unknown(f"{file}: windows: organ", organ, labels.names)
        windows[organ] = check_window(numbers, f"{file}: windows: {organ}")
    return windows


def check_window(numbers: Any, what: str) -> Window:
    """Width and level, if they are some.

    Raises:
        ValueError: They are not; the message begins with `what`.
    """
    good = isinstance(numbers, (list, tuple)) and len(numbers) == 2
    good = good and all(isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) for one in numbers)
    if not good or numbers[0] <= 0:
        raise ValueError(f"{what}: expected width and level in HU such as [400, 50], the width above 0, found {numbers!r}")
    return float(numbers[0]), float(numbers[1])


def window_of(organ: str, own: Mapping[str, Window]) -> Window | None:
    """The window of an organ: the dataset's own, else the usual one by the words of its name, else None.

    Args:
        organ: Its name, like ``lung_left`` or ``Spinal Cord``.
        own: The dataset's ``windows``.
    """
    if organ in own:
        return own[organ]
    words = _words(organ)
    fitting = [name for name in WINDOWS if set(name.split()) <= words or name.replace(" ", "") in words]
    return WINDOWS[max(fitting, key=len)] if fitting else None


def common_window(organs: Sequence[str], own: Mapping[str, Window]) -> Window:
    """The window of a model of these organs.

    Raises:
        ValueError: An organ has no known window, or they have different ones; the message says which.
    """
    found = {organ: window_of(organ, own) for organ in organs}
    without = [organ for organ, window in found.items() if window is None]
    if without:
        raise ValueError(
            f'--window auto: no window is known for {", ".join(without)}; give one in dataset.json ("windows": {{"{without[0]}": '
            f"[WIDTH, LEVEL]}}) or with --window WIDTH LEVEL. Known by name: {', '.join(WINDOWS)}"
        )
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{organ} {width:g}/{level:g}" for organ, (width, level) in found.items())
        raise ValueError(f"--window auto: a model has one window, these differ ({listed}); give --window WIDTH LEVEL or fewer --organs")
    return next(iter(found.values()))


def with_normalization(configuration: Configuration, schemes: Sequence[str]) -> tuple[Configuration, str]:
    """The configuration with data that is normalised by other schemes.

    Args:
        configuration: As planned.
        schemes: Names for `autoseg.normalization.find_scheme`: one a channel, or one for all channels. A single one whose numbers are
            Hounsfield units goes to the channels of CT only.

    Returns:
        The configuration, which reads a data folder of its own (``3d_fullres_w400_l50``), and the word that makes it so (``w400_l50``);
        the configuration as it was and an empty word where nothing changes.

    Raises:
        ValueError: A scheme is unknown, wants CT where there is none, or their number is wrong.
    """
    for scheme in schemes:
        find_scheme(scheme)
    planned = configuration.normalization
    is_ct = [scheme == "ct" for scheme in planned]
    if len(schemes) == 1 and is_for_ct(schemes[0]):
        new = tuple(schemes[0] if ct else scheme for ct, scheme in zip(is_ct, planned, strict=True))
    elif len(schemes) in (1, len(planned)):
        new = tuple(schemes) if len(schemes) == len(planned) else tuple(schemes) * len(planned)
    else:
        raise ValueError(f"--normalization: expected one scheme, or one for each of {len(planned)} channels, got {', '.join(schemes)}")
    odd = [scheme for scheme, ct in zip(new, is_ct, strict=True) if is_for_ct(scheme) and not ct]
    if odd or (len(schemes) == 1 and is_for_ct(schemes[0]) and not any(is_ct)):
        raise ValueError(
            f"{(odd or schemes)[0]}: its numbers are Hounsfield units, expected a channel of CT, found normalisation {', '.join(planned)}; "
            'a channel is CT where channel_names in dataset.json calls it "CT"'
        )
    if new == planned:
        return configuration, ""
    masks = tuple(mask and scheme == "zscore" for mask, scheme in zip(configuration.mask_normalization, new, strict=True))
    word = "+".join(_word(scheme) for scheme in (schemes if len(set(schemes)) > 1 else schemes[:1]))
    return replace(configuration, normalization=new, mask_normalization=masks, data=f"{configuration.data}_{word}"), word


def _word(scheme: str) -> str:
    head, _, numbers = scheme.partition(":")
    if head == "window":
        width, level = (float(number) for number in numbers.split(":"))
        return f"w{width:g}_l{level:g}"
    return file_name(scheme)


def _words(organ: str) -> set[str]:
    """The words of a name in lower case, and each without the s of a plural."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", organ)
    words = set(re.findall(r"[^\W_]+", spaced.lower()))
    return words | {word.removesuffix("s") for word in words}
