"""The experiments of papers as settings, one file a paper: ``--preset NAME`` of `autoseg_run` and `autoseg_train`."""

from __future__ import annotations

from . import conze2021, crespi2023, fang2020, roth2018, thaler2021
from .paper_preset import PaperPreset

PAPER_PRESETS: dict[str, PaperPreset] = {
    "conze2021": conze2021.PRESET,
    "fang2020": fang2020.PRESET,
    "thaler2021": thaler2021.PRESET,
    "roth2018": roth2018.PRESET,
    "crespi2023": crespi2023.PRESET,
}
"""Name to experiment."""
