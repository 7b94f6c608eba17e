"""Synthetic CT dataset of the abdomen for demonstrations and tests, made of geometric shapes.

Anatomy is placed as in a patient lying on the back (ITK's LPS: the patient's left is +x), intensities are Hounsfield units, and
spacing, extent, position, body shape, contrast phase, noise and disease vary from case to case.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ...runtime.registry import unknown_name_error
from ...runtime.serialization import Writer, atomic_write, write_json
from ...schema import Geometry
from ..images import write_image, write_label
from .anatomy import ORGANS, paint_abdomen
from .patient import PHASES, Patient, draw_patient
from .shapes import Canvas, Space, column, smooth_field

log = logging.getLogger(__name__)

AIR = -1000.0


def make_phantom(
    folder: Path,
    *,
    n_train: int,
    n_test: int,
    seed: int,
    size: float = 1.0,
    phase: str | None = None,
    write: Writer = atomic_write,
) -> None:
    """Writes a dataset in nnU-Net's layout: ``imagesTr labelsTr imagesTs labelsTs dataset.json``.

    Case i depends only on `seed`, `size`, `phase` and i, so a larger dataset contains the smaller one's first cases.

    Args:
        folder: Dataset folder, made if missing, by convention ``.../raw/Dataset900_Phantom``.
        size: Voxels per axis against the usual 28-40 x 96-128 x 96-128; half as many make a test eight times quicker.
        phase: ``native``, ``arterial`` or ``portal``, of all scans, which then have water in the stomach: much easier to learn than scans
            of different phases and contents, which None draws.

    Raises:
        ValueError: A number is out of range, or there is no such phase.
    """
    if phase is not None and phase not in PHASES:
        raise unknown_name_error("phase", phase, PHASES)
    if n_train < 1 or n_test < 0 or not 0.15 <= size <= 4:
        raise ValueError(f"phantom: expected n_train >= 1, n_test >= 0 and size in 0.15..4, got {n_train}, {n_test} and {size}")
    for i in tqdm(range(n_train + n_test), desc="phantom", unit="case"):
        image, label, geometry = phantom_case(np.random.default_rng((seed, i)), size=size, phase=phase)
        part, name = ("Tr" if i < n_train else "Ts"), f"phantom_{i:03d}"
        write_image(folder / f"images{part}" / f"{name}_0000.nii.gz", image[None], geometry, write=write)
        write_label(folder / f"labels{part}" / f"{name}.nii.gz", label, geometry, write=write)
    description = {
        "name": "Phantom",
        "description": "Made-up abdominal CT",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0} | {organ: value for value, organ in enumerate(ORGANS, start=1)},
        "numTraining": n_train,
        "file_ending": ".nii.gz",
    }
    write_json(folder / "dataset.json", description, write=write, digest=False)
    log.info("%d training and %d test cases written to %s", n_train, n_test, folder)


def phantom_case(rng: np.random.Generator, *, size: float = 1.0, phase: str | None = None) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """One CT ``(Z, Y, X)`` int16 in HU, its labels ``(Z, Y, X)`` uint8 (`ORGANS` from 1), and where the voxels lie."""
    patient = draw_patient(rng, phase=phase)
    geometry = _draw_geometry(rng, patient, size)
    scanner = _coordinates(geometry)
    space = _deform(rng, scanner, patient, geometry)
    canvas = Canvas(geometry.shape, softness=geometry.spacing[-1], background=AIR)
    _paint_table(canvas, scanner, patient)
    paint_abdomen(canvas, space, patient)
    return _scan(rng, canvas.hu, geometry), canvas.labels, geometry


def _draw_geometry(rng: np.random.Generator, patient: Patient, size: float) -> Geometry:
    """A field of view around the body, 140 to 200 mm long, in voxels that are thicker than wide."""
    width = 2 * patient.scale[0] * (146 + patient.fat) * rng.uniform(1.04, 1.18)
    in_plane = int(round(np.clip(width / rng.uniform(2.5, 3.2), 96, 128) * size))
    length, thickness = rng.uniform(160, 200), rng.uniform(4.2, 6.0) / size
    slices = min(int(round(length / thickness)), int(round(40 * size)))
    spacing = (round(thickness, 2), round(width / in_plane, 3), round(width / in_plane, 3))
    lowest = patient.scale[2] * rng.uniform(-92, -70)
    corner = tuple(-0.5 * spacing[-1] * (in_plane - 1) + rng.normal(0, 4) for _ in range(2))
    origin = (float(corner[0]), float(corner[1] - 6), float(lowest))
    return Geometry((slices, in_plane, in_plane), spacing, origin, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def _coordinates(geometry: Geometry) -> Space:
    """Scanner coordinates of the voxels, mm, full arrays; the body's axis is at x = y = 0."""
    axes = [o + s * np.arange(n) for o, s, n in zip(geometry.origin[::-1], geometry.spacing, geometry.shape, strict=True)]
    z, y, x = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij")
    return Space(x, y, z)


def _deform(rng: np.random.Generator, scanner: Space, patient: Patient, geometry: Geometry) -> Space:
    """Reference coordinates seen through the patient's size, a bend of the whole body and roughness of the surfaces."""
    sx, sy, sz = patient.scale
    space = Space(scanner.x / sx, scanner.y / sy, scanner.z / sz)
    for length, amplitude in ((75.0, 4.0), (24.0, 1.1)):
        cells = tuple(length / spacing for spacing in geometry.spacing)
        space = space.moved([smooth_field(rng, geometry.shape, cells, amplitude) for _ in range(3)])
    return space


def _paint_table(canvas: Canvas, scanner: Space, patient: Patient) -> None:
    """A curved carbon shell filled with foam, just below the back."""
    back = patient.scale[1] * (101 + 0.9 * patient.fat) + 5
    shell = column(scanner, (0, back - 330), (420, 345), 2.0)
    slab = np.maximum(np.abs(shell) - 11, np.abs(scanner.x) - 200)
    canvas.paint(slab, -180)
    canvas.paint(slab + 3.5, -920)


def _scan(rng: np.random.Generator, hu: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Simulates a scanner: point spread, texture, correlated noise, whole HU in -1024..3071."""
    image = ndimage.gaussian_filter(hu, (0.4, 0.55, 0.55))
    noise = ndimage.gaussian_filter(rng.normal(0, 1, hu.shape).astype(np.float32), (0.25, 0.7, 0.7))
    texture = smooth_field(rng, hu.shape, tuple(14 / spacing for spacing in geometry.spacing), 4.0)
    image += np.where(image > -300, texture, 0) + noise * (rng.uniform(8, 20) / noise.std())
    return np.clip(np.round(image), -1024, 3071).astype(np.int16)
