"""The networks side by side: what each is, and what it costs for a patch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..networks import NETWORKS
from ..networks.catalogue import PAPERS, Info
from ..networks.measure import NetworkCost, measure
from ..planners.patch import network_options
from ..planners.topology import plan_topology
from ..runtime.registry import unknown

DEFAULT_PATCH = {2: (128, 128), 3: (64, 64, 64)}
PLANNED = ("plain_unet", "residual_unet")
"""Networks that have no shape of their own: the planner gives them one for each patch."""
UNLISTED = Info("", (2, 3))
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class NetworkRow:
    """One line of the table.

    Attributes:
        name: In `NETWORKS`, or ``module:attribute``.
        paper: Authors, year, venue; empty for a network from outside.
        dim: Spatial axes that it was built for.
        patch: Voxels per axis.
        cost: None where it cannot be built.
        problem: Why not; empty where it can.
    """

    name: str
    paper: str
    dim: int
    patch: tuple[int, ...]
    cost: NetworkCost | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """The line as plain values; the cost's entries stand beside the others, as None where there is none."""
        cost = asdict(self.cost) if self.cost else dict.fromkeys(NetworkCost.__dataclass_fields__)
        return {"name": self.name, "paper": self.paper, "dim": self.dim, "patch": list(self.patch), **cost, "problem": self.problem}


def default_options(name: str, patch: Sequence[int]) -> dict[str, Any]:
    """The options with which a network is built where no plan gives any.

    Args:
        name: In `NETWORKS`, or ``module:attribute``.
        patch: Voxels per axis.

    Returns:
        For the networks that the planner shapes, its choice for the patch and equal voxel sizes on all axes; for others nothing: they
        have defaults.
    """
    return network_options(plan_topology((1.0,) * len(patch), patch), name) if name in PLANNED else {}


def list_networks(
    names: Iterable[str] = (),
    *,
    in_channels: int = 1,
    out_channels: int = 2,
    dim: int | None = None,
    patch: Sequence[int] | None = None,
) -> list[NetworkRow]:
    """Measures networks, each for as many spatial axes as it is meant for.

    Args:
        names: In `NETWORKS`, or ``module:attribute``; all of the table where there are none.
        in_channels: Channels of the image.
        out_channels: Classes, the background included.
        dim: Spatial axes; where None those of `patch`, or 2 and 3.
        patch: Voxels per axis; `DEFAULT_PATCH` where None.

    Raises:
        ValueError: A name is unknown, a number of channels is not positive, or the patch has not `dim` axes. (A network that cannot be
            built for the patch is no error, but a line that says why.)
    """
    if in_channels < 1 or out_channels < 1:
        raise ValueError(f"networks: expected at least one channel and one class, got {in_channels} and {out_channels}")
    chosen = list(names) or list(NETWORKS)
    for name in chosen:
        if name not in NETWORKS and ":" not in name:
            raise unknown("network", name, NETWORKS)
    return [
        _row(name, in_channels, out_channels, one)
        for one in _patches(dim, patch)
        for name in chosen
        if len(one) in PAPERS.get(name, UNLISTED).dims
    ]


def _patches(dim: int | None, patch: Sequence[int] | None) -> list[tuple[int, ...]]:
    if patch is None:
        return list(DEFAULT_PATCH.values()) if dim is None else [DEFAULT_PATCH[dim]]
    wanted = "2 or 3" if dim is None else dim
    if len(patch) not in DEFAULT_PATCH or dim not in (None, len(patch)):
        raise ValueError(f"networks: expected a patch of {wanted} sizes, got {tuple(patch)}")
    return [tuple(patch)]


def _row(name: str, in_channels: int, out_channels: int, patch: tuple[int, ...]) -> NetworkRow:
    cost, problem = None, ""
    try:
        cost = measure(name, len(patch), in_channels, out_channels, patch, deep_supervision=False, **default_options(name, patch))
    except ValueError as error:
        problem = str(error)
    return NetworkRow(name, PAPERS.get(name, UNLISTED).paper, len(patch), patch, cost, problem)


def describe_networks(rows: Sequence[NetworkRow]) -> str:
    """The lines as a table, a block for each number of axes; what could not be built has a dash, and its reason below."""
    blocks = []
    for dim in sorted({row.dim for row in rows}):
        block = [row for row in rows if row.dim == dim]
        cells = [("network", "parameters", "FLOPs", "conv elements", "paper")]
        cells += [(row.name, *_costs(row.cost), row.paper or "-") for row in block]
        widths = [max(len(line[column]) for line in cells) for column in range(4)]
        lines = ["  ".join([line[0].ljust(widths[0]), *(line[i].rjust(widths[i]) for i in (1, 2, 3)), line[4]]).rstrip() for line in cells]
        patch = "x".join(map(str, block[0].patch))
        blocks.append("\n".join([f"{dim}D, forward pass of one patch of {patch}", *lines]))
    problems = [f"{row.name} in {row.dim}D: {row.problem}" for row in rows if row.problem]
    return "\n\n".join(blocks + ["\n".join(problems)] if problems else blocks)


def _costs(cost: NetworkCost | None) -> tuple[str, str, str]:
    if cost is None:
        return "-", "-", "-"
    return f"{cost.parameters:,}", _short(cost.flops), _short(cost.elements)


def _short(number: int) -> str:
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
