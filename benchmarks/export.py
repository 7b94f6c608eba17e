"""Side by side: label maps from logits by the export of this project and by interpolating every class at every voxel.

Run ``python benchmarks/export.py`` (``--help`` for sizes). Each method runs in a process of its own on the same logits: smooth organs
with noisy borders, as a trained network gives. "Memory" is the peak above what the process held before, "differ" the voxels whose label
is not that of the first row.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from skimage.transform import resize
from tqdm import tqdm

from autoseg.inference.export import export_labels
from autoseg.inference.logits import Logits
from autoseg.runtime.hardware import peak_memory
from autoseg.schema import Geometry, Labels, Trace

log = logging.getLogger("benchmark")
FULL_SIZE = 30
"""Organs that are as large as those of the trunk; more are smaller, as a body holds no more."""


@dataclass(frozen=True)
class Size:
    """What is exported: organs, the network's grid and the file's."""

    organs: int
    grid: tuple[int, int, int]
    file: tuple[int, int, int]


def make_logits(size: Size) -> np.ndarray:
    """Organs as overlapping ellipsoids, ``(K, Z, Y, X)`` float16, background first; many take no more room in all than `FULL_SIZE` do."""
    rng = np.random.default_rng(0)
    axes = [((np.arange(n) + 0.5) / n).astype(np.float32).reshape([-1 if a == i else 1 for a in range(3)]) for i, n in enumerate(size.grid)]
    logits = np.empty((size.organs + 1, *size.grid), np.float16)
    logits[0] = rng.normal(0, 0.3, size.grid)
    for channel in logits[1:]:
        centre, radius = rng.uniform(0.15, 0.85, 3), rng.uniform(0.04, 0.15, 3) * min(1.0, FULL_SIZE / size.organs) ** (1 / 3)
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radius, strict=True))
        channel[...] = np.clip(8 * (1 - np.sqrt(distance)), -15, 15) + rng.normal(0, 0.3, size.grid)
    return logits


def by_export(logits: np.ndarray, size: Size) -> np.ndarray:
    """This project."""
    geometry = Geometry(size.file, (1.0, 1.0, 1.0), (0.0,) * 3, tuple(np.eye(3).ravel()))
    spacing = tuple(n_out / n_in for n_out, n_in in zip(size.file, size.grid, strict=True))
    trace = Trace("case", geometry, (0, 1, 2), size.file, tuple((0, n) for n in size.file), size.grid, spacing)
    labels = Labels(tuple(f"organ {i}" for i in range(1, size.organs + 1)), tuple((i,) for i in range(1, size.organs + 1)))
    return export_labels([Logits(logits, trace)], labels)


def by_torch(logits: np.ndarray, size: Size) -> np.ndarray:
    """All classes at once, interpolated by torch."""
    values = torch.from_numpy(logits)[None].float()
    return torch.nn.functional.interpolate(values, size.file, mode="trilinear").argmax(1)[0].to(torch.int16).numpy()


def by_skimage(logits: np.ndarray, size: Size) -> np.ndarray:
    """All classes, interpolated one after the other by scikit-image, as nnU-Net does by default."""
    values = np.empty((len(logits), *size.file), np.float32)
    for target, channel in zip(values, logits, strict=True):
        target[...] = resize(channel.astype(np.float32), size.file, 1, mode="edge", anti_aliasing=False, clip=True)
    return values.argmax(0).astype(np.int16)


METHODS: dict[str, Callable[[np.ndarray, Size], np.ndarray]] = {
    "autoseg": by_export,
    "torch, all classes": by_torch,
    "skimage, all classes": by_skimage,
}


def measure(method: str, size: Size) -> tuple[float, float, int, np.ndarray]:
    """Seconds by the clock and of the CPU, bytes of peak memory above the start, and the labels; meant for a process of its own."""
    logits = make_logits(size)
    warm = Size(1, (4, 4, 4), (6, 6, 6))
    METHODS[method](make_logits(warm), warm)
    before, start, cpu = peak_memory(), time.perf_counter(), time.process_time()
    labels = METHODS[method](logits, size)
    return time.perf_counter() - start, time.process_time() - cpu, peak_memory() - before, labels


def main() -> None:
    """Measures all methods and logs the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--organs", type=int, default=20)
    parser.add_argument("--grid", type=int, nargs=3, default=(80, 128, 128), metavar=("Z", "Y", "X"), help="of the network")
    parser.add_argument("--file", type=int, nargs=3, default=(160, 256, 256), metavar=("Z", "Y", "X"), help="of the label map")
    given = parser.parse_args()
    size = Size(given.organs, tuple(given.grid), tuple(given.file))
    results = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in tqdm(METHODS, desc="methods"):
            results[name] = pool.apply(measure, (name, size))
    _, seconds, memory, labels = results["autoseg"]
    log.info("%d organs, %s -> %s, logits %.0f MB", size.organs, size.grid, size.file, (size.organs + 1) * np.prod(size.grid) * 2 / 1e6)
    log.info("%-22s %9s %9s %11s %9s %9s %8s", "method", "time s", "CPU s", "memory MB", "x CPU", "x memory", "differ")
    for name, (clock, cpu, peak, found) in results.items():
        ratios = (cpu / seconds, peak / max(memory, 1), np.count_nonzero(found != labels))
        log.info("%-22s %9.2f %9.2f %11.0f %9.1f %9.1f %8d", name, clock, cpu, peak / 1e6, *ratios)


if __name__ == "__main__":
    main()
