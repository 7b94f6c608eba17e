"""Where does the time of a training step and of a predicted volume go, beside what this machine does at its best in the same run?

The machine first: products of two matrices in each number format, and copies in and out of the cache. Then steps of `Trainer` on random
numbers and logits of a volume (shapes as in `training_step`), their operations beside the products of matrices, and by torch's profiler the
shares of what computes. More operations a second than a product of matrices means that convolutions were computed with fewer
multiplications (Winograd), which are counted as if they were all there.

    python benchmarks/where_time_goes.py --shapes hippocampus-2 acdc-3d acdc-2d --out where.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from sliding_window import autoseg_volume
from torch.profiler import ProfilerActivity, profile, record_function
from training_step import SHAPES, autoseg_step

KINDS: Mapping[str, tuple[str, ...]] = {
    "convolutions of autoseg": ("winograd",),
    "convolutions of torch": ("mkldnn", "onednn", "convolution", "slow_conv"),
    "norm, activation": ("norm", "leaky_relu"),
    "products": ("aten::mm", "aten::bmm", "aten::addmm"),
    "cat, copies, padding": ("aten::cat", "aten::copy_", "constant_pad", "aten::fill_", "aten::zero_"),
    "optimiser": ("sgd", "foreach", "optimizer", "clip_grad"),
}
"""Kind of computation -> parts of the names by which the profiler knows it; the first that fits counts."""
REST = "the rest"

VOLUMES = {"hippocampus-2": [60, 80, 60], "acdc-3d": [12, 216, 200], "acdc-2d": [10, 256, 224]}
"""Predicted without mirrored copies; other shapes: the patch, once in 3D and in four slices."""


def kind_of(name: str) -> str:
    """The kind of computation that the profiler calls so."""
    low = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in low for part in parts)), REST)


def seconds_of(function: Callable[[], object], repeats: int) -> float:
    """The median of some calls, after two."""
    found = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return median(found[2:])


def machine(edge: int = 1536, repeats: int = 15) -> dict[str, float]:
    """Products of matrices, 10^9 operations a second, and copies, GB read and written a second."""
    found = {}
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        one, two = (torch.randn(edge, edge).to(kind) for _ in range(2))
        found[f"product in {kind}".replace("torch.", "")] = 2 * edge**3 / seconds_of(lambda a=one, b=two: a @ b, repeats) / 1e9
    for name, values in (("copy of 16 MB", 2**22), ("copy of 256 MB", 2**26)):
        source, target = torch.randn(values), torch.empty(values)
        found[name] = 8 * values / seconds_of(lambda a=source, b=target: b.copy_(a), repeats) / 1e9
    return found


@contextmanager
def named_calls() -> Iterator[None]:
    """Within the block the profiler sees calls of translated C functions by the name of their source."""
    from autoseg.networks import native, normalisation, winograd

    call = native.call

    def named(source: Path, name: str, *arguments: Any) -> int:
        with record_function(f"autoseg {source.stem} {name}"):
            return call(source, name, *arguments)

    normalisation.call = winograd.call = named
    try:
        yield
    finally:
        normalisation.call = winograd.call = call


def shares(function: Callable[[], object]) -> dict[str, float]:
    """Kind -> share of the time of one call, by the profiler."""
    with named_calls(), profile(activities=[ProfilerActivity.CPU]) as found:
        function()
    times: Counter[str] = Counter()
    for event in found.key_averages():
        times[kind_of(event.key)] += event.self_cpu_time_total
    return {kind: times[kind] / times.total() for kind in (*KINDS, REST)}


def forward_operations(shape: Mapping[str, Any]) -> int:
    """Of one patch through the network, two for each multiply-add."""
    from autoseg.networks.network_cost import measure

    stages = len(shape["features"])
    options = {key: shape[key] for key in ("features", "strides", "kernel_sizes")}
    options |= {"convs_per_stage": [2] * stages, "decoder_convs": [2] * (stages - 1)}
    return measure("plain_unet", len(shape["patch"]), 1, shape["classes"], shape["patch"], **options).flops


def patches_of(function: Callable[[], object]) -> int:
    """How many patches go through networks in one call."""
    seen = 0

    def count(module: torch.nn.Module, inputs: tuple[Any, ...], result: object) -> None:
        nonlocal seen
        if type(module).__name__ == "PlainUNet":
            seen += len(inputs[0])

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        function()
    finally:
        handle.remove()
    return seen


def row(what: str, function: Callable[[], object], operations: float, best: float, *, repeats: int) -> dict[str, Any]:
    """One line of the table."""
    seconds = seconds_of(function, repeats)
    rate = operations / seconds / 1e9
    return {"what": what, "seconds": seconds, "operations": operations / 1e9, "rate": rate, "of_best": rate / best, **shares(function)}


def rows_of(name: str, best: float, *, repeats: int) -> list[dict[str, Any]]:
    """A step and a volume of one shape."""
    shape = SHAPES[name]
    forward, three = forward_operations(shape), 3  # forward, and the gradients of features and of weights
    volume = VOLUMES.get(name) or [*([4] * (3 - len(shape["patch"]))), *shape["patch"]]
    predict = autoseg_volume(shape, volume, False)
    return [
        row(f"{name}: step", autoseg_step(shape), three * shape["batch"] * forward, best, repeats=repeats),
        row(f"{name}: volume {'x'.join(map(str, volume))}", predict, patches_of(predict) * forward, best, repeats=repeats),
    ]


def table(found: Mapping[str, float], rows: list[dict[str, Any]]) -> str:
    """Both tables as Markdown."""
    lines = ["| the machine | |", "|---|---:|"]
    lines += [f"| {name} | {value:.0f} {'GB/s' if 'copy' in name else 'GFLOP/s'} |" for name, value in found.items()]
    kinds = [*KINDS, REST]
    lines += ["", f"| | s | GFLOP | of the best product | {' | '.join(kinds)} |", f"|---|{'---:|' * (3 + len(kinds))}"]
    for one in rows:
        parts = " | ".join(f"{one[kind]:.0%}" for kind in kinds)
        lines.append(f"| {one['what']} | {one['seconds']:.2f} | {one['operations']:.0f} | {one['of_best']:.2f} | {parts} |")
    return "\n".join(lines)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES), default=list(VOLUMES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = machine()
    best = max(value for name, value in found.items() if "product" in name)
    rows = [one for name in given.shapes for one in rows_of(name, best, repeats=given.repeats)]
    print(f"{torch.get_num_threads()} threads\n\n{table(found, rows)}")
    if given.out:
        given.out.write_text(json.dumps({"machine": found, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
