"""Lists the networks: paper, parameters, operations and memory proxy of each for one patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..networks import NETWORKS, network_spec
from ..networks.network_cost import NetworkCost, measure
from ..planners.patch import network_options
from ..planners.topology import plan_topology
from ..runtime.registry import allows_code
from ..runtime.text_table import aligned

DEFAULT_PATCH = {2: (128, 128), 3: (64, 64, 64)}
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class NetworkRow:
    """Row of the table of networks.

    Attributes:
        paper: Authors, year, venue; empty for a network from outside.
        dim: Spatial axes that it was built for.
        cost: None where it cannot be built.
        problem: Why it cannot be built; empty where it can.
    """

    name: str
    paper: str
    dim: int
    patch: tuple[int, ...]
    cost: NetworkCost | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """The row as plain values; the entries of the cost are on the same level, and None where it could not be built."""
        cost = asdict(self.cost) if self.cost else dict.fromkeys(NetworkCost.__dataclass_fields__)
        return {"name": self.name, "paper": self.paper, "dim": self.dim, "patch": list(self.patch), **cost, "problem": self.problem}


def default_options(name: str, patch: Sequence[int]) -> dict[str, Any]:
    """Options to build a network with where there is no plan.

    Returns:
        For networks with a planned topology the planner's choice for the patch and isotropic voxels; nothing for others, which have
        defaults.
    """
    return network_options(plan_topology((1.0,) * len(patch), patch), name) if network_spec(name).planned else {}


@allows_code("names")
def list_networks(
    names: Sequence[str] = (),
    *,
    in_channels: int = 1,
    out_channels: int = 2,
    dim: int | None = None,
    patch: Sequence[int] | None = None,
) -> list[NetworkRow]:
    """Measures networks, each for the numbers of spatial axes that it can be built for.

    Args:
        names: In `NETWORKS`, or ``module:name``; all of the table where there are none.
        out_channels: Classes, the background included.
        dim: Spatial axes; where None those of `patch`, or 2 and 3.
        patch: Voxels per axis; `DEFAULT_PATCH` where None.

    Raises:
        ValueError: A name is unknown or cannot be imported, a number of channels is not positive, or the patch has not `dim` axes. (A
            network that cannot be built for the patch is no error, but a row that says why.)
    """
    if in_channels < 1 or out_channels < 1:
        raise ValueError(f"networks: expected at least one channel and one class, got {in_channels} and {out_channels}")
    specs = {name: network_spec(name) for name in names or NETWORKS}
    return [
        _row(name, spec.paper, size, in_channels=in_channels, out_channels=out_channels)
        for size in _patches(dim, patch)
        for name, spec in specs.items()
        if len(size) in spec.dims
    ]


def _patches(dim: int | None, patch: Sequence[int] | None) -> list[tuple[int, ...]]:
    if patch is None:
        return list(DEFAULT_PATCH.values()) if dim is None else [DEFAULT_PATCH[dim]]
    wanted = "2 or 3" if dim is None else dim
    if len(patch) not in DEFAULT_PATCH or dim not in (None, len(patch)):
        raise ValueError(f"networks: expected a patch of {wanted} sizes, got {tuple(patch)}")
    return [tuple(patch)]


def _row(name: str, paper: str, patch: tuple[int, ...], *, in_channels: int, out_channels: int) -> NetworkRow:
    cost, problem = None, ""
    try:
        cost = measure(name, len(patch), in_channels, out_channels, patch, deep_supervision=False, **default_options(name, patch))
    except ValueError as error:
        problem = str(error)
    return NetworkRow(name, paper, len(patch), patch, cost, problem)


def describe_networks(rows: Sequence[NetworkRow]) -> str:
    """Formats the rows as text, a table for each number of axes; what could not be built has dashes, and the reason below."""
    blocks = []
    for dim in sorted({row.dim for row in rows}):
        block = [row for row in rows if row.dim == dim]
        cells = [("network", "parameters", "FLOPs", "conv elements", "paper")]
        cells += [(row.name, *_costs(row.cost), row.paper or "-") for row in block]
        patch = "x".join(map(str, block[0].patch))
        blocks.append("\n".join([f"{dim}D, forward pass of one patch of {patch}", aligned(cells)]))
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
