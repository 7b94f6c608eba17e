"""Where each network comes from, and for how many axes it is meant. One line a network, as in `NETWORKS`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Info:
    """What a table of networks says beside the numbers.

    Attributes:
        paper: Authors, year, venue.
        dims: Numbers of spatial axes that it can be built for.
    """

    paper: str
    dims: tuple[int, ...]


PAPERS: dict[str, Info] = {
    "plain_unet": Info("Isensee et al. 2021, Nature Methods", (2, 3)),
    "residual_unet": Info("Isensee et al. 2024, MICCAI", (2, 3)),
}
"""Name in `NETWORKS` -> what is known of it."""
