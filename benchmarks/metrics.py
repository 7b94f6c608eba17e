"""What do all metrics of a CT with many organs cost in time and memory, and by distance transforms of the whole volume, and do they agree?

Each method runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from autoseg.evaluation.case_scores import score_case
from autoseg.evaluation.masks import border, grow_box
from autoseg.schema import Labels

SPACING = (1.5, 0.8, 0.8)


def make_case(shape: Sequence[int], n_organs: int) -> tuple[np.ndarray, np.ndarray]:
    """Ellipsoids of very different sizes in reference and, moved and wobbled, in the prediction: ``(Z, Y, X)`` int16, twice."""
    rng = np.random.default_rng(0)
    maps = np.zeros((2, *shape), np.int16)
    for organ in range(1, n_organs + 1):
        radius = np.array(shape) * (0.28 if organ == 1 else rng.uniform(0.03, 0.13))
        centre = np.array(shape) * (0.5 if organ == 1 else rng.uniform(0.2, 0.8, 3))
        for index, one in enumerate(maps):
            where = centre + index * rng.normal(0, 1.5, 3)
            box = tuple(slice(max(0, int(c - r * 1.1)), int(c + r * 1.1) + 2) for c, r in zip(where, radius, strict=True))
            part = one[box]
            grids = np.ogrid[tuple(slice(b.start, b.start + n) for b, n in zip(box, part.shape, strict=True))]
            apart = [(grid - c) / r for grid, c, r in zip(grids, where, radius, strict=True)]
            wobble = index * 0.04 * np.sin(7 * apart[0]) * np.cos(9 * apart[1]) * np.sin(8 * apart[2])
            part[sum(one**2 for one in apart) < 1 + wobble] = organ
    return maps[0], maps[1]


def labels_of(n_organs: int) -> Labels:
    """Organs called 1, 2, ..."""
    return Labels(tuple(str(organ) for organ in range(1, n_organs + 1)), tuple((organ,) for organ in range(1, n_organs + 1)))


def ours(reference: np.ndarray, prediction: np.ndarray, n_organs: int) -> dict[str, float]:
    """Means over the organs of all default metrics."""
    scores = score_case("case", prediction, reference, labels_of(n_organs), spacing_mm=SPACING)
    return {name: float(np.mean([score.other[name] for score in scores])) for name in ("hd_border", "assd_border", "hd95_surface")}


def transforms(reference: np.ndarray, prediction: np.ndarray, n_organs: int, *, crop: bool) -> dict[str, float]:
    """The border metrics alone, by Euclidean distance transforms of the whole volume, or of the box of both masks."""
    largest, mean = [], []
    for organ in range(1, n_organs + 1):
        both = [one == organ for one in (reference, prediction)]
        if crop:
            (box,) = ndimage.find_objects((both[0] | both[1]).view(np.uint8))
            both = [one[grow_box(box, one.shape)] for one in both]
        edges = [border(one) for one in both]
        far = [ndimage.distance_transform_edt(~other, sampling=SPACING)[edge] for edge, other in (edges, edges[::-1])]
        largest.append(max(one.max() for one in far))
        mean.append(np.concatenate(far).mean())
    return {"hd_border": float(np.mean(largest)), "assd_border": float(np.mean(mean))}


def package(reference: np.ndarray, prediction: np.ndarray, n_organs: int) -> dict[str, float]:
    """One of the surface metrics alone, by the package surface-distance."""
    import surface_distance

    found = []
    for organ in range(1, n_organs + 1):
        distances = surface_distance.compute_surface_distances(reference == organ, prediction == organ, SPACING)
        found.append(surface_distance.compute_robust_hausdorff(distances, 95))
    return {"hd95_surface": float(np.mean(found))}


METHODS = {
    "autoseg, all default metrics": ours,
    "distance transforms of each box, border metrics": lambda *case: transforms(*case, crop=True),
    "distance transforms of the volume, border metrics": lambda *case: transforms(*case, crop=False),
    "surface-distance, HD95": package,
}


def measure(name: str, case: Path, n_organs: int) -> dict[str, float]:
    """Seconds of the processor, peak memory beyond the two label maps in MB, and the values."""
    maps = np.load(case)
    METHODS[name](*make_case((40, 40, 40), 1), 1)  # so that nothing is imported while it is measured
    before = peak_memory()
    start = time.process_time()
    values = METHODS[name](*maps, n_organs)
    seconds = time.process_time() - start
    return {"seconds": seconds, "memory_mb": peak_memory() - before, **values}


def peak_memory() -> float:
    """MB, as the kernel counted it since this process began. Not from getrusage, which begins with the peak of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    """Measures each method in a process of its own, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--organs", type=int, default=14)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--case", type=Path, help="measure in this process and print JSON (used by the benchmark itself)")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.methods[0], options.case, options.organs)))
        return
    print(f"{'method':52} seconds  memory, MB  values")
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "case.npy"
        np.save(case, np.stack(make_case(options.shape, options.organs)))
        for name in options.methods:
            arguments = ["--organs", str(options.organs), "--case", str(case), "--methods", name]
            done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout)
            values = ", ".join(f"{key} {value:.6f}" for key, value in found.items() if key not in ("seconds", "memory_mb"))
            print(f"{name:52} {found['seconds']:7.1f} {found['memory_mb']:11.0f}  {values}", flush=True)


if __name__ == "__main__":
    main()
