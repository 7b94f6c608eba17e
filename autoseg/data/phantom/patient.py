"""Random parameters of a phantom patient, drawn apart from painting the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import Point, as_point


@dataclass(frozen=True)
class Tissue:
    """HU of the contrast-dependent tissues in one scan."""

    liver: float
    spleen: float
    kidney: float
    medulla: float
    aorta: float
    veins: float
    stomach_wall: float
    pancreas: float


PHASES: dict[str, tuple[float, Tissue]] = {
    "native": (0.2, Tissue(liver=58, spleen=48, kidney=34, medulla=30, aorta=42, veins=40, stomach_wall=42, pancreas=40)),
    "arterial": (0.25, Tissue(liver=72, spleen=118, kidney=175, medulla=85, aorta=310, veins=95, stomach_wall=88, pancreas=105)),
    "portal": (0.55, Tissue(liver=112, spleen=122, kidney=180, medulla=165, aorta=155, veins=165, stomach_wall=78, pancreas=92)),
}
"""Share of the scans and HU by time after the injection of contrast medium."""


@dataclass(frozen=True)
class Blob:
    """A ball or ellipsoid that a patient has: a lesion, a cyst, a bowel loop. `radii` in mm, `hu` of its inside."""

    centre: Point
    radii: Point
    hu: float


@dataclass(frozen=True)
class Patient:
    """One phantom patient. Lengths in millimetres of the reference anatomy.

    Attributes:
        scale: Size of the body against the reference, in x, y, z.
        fat: Thickness of the fat under the skin.
        visceral_fat: HU between the organs (purer fat is darker).
        tissue: HU by contrast phase.
        offsets: Organ -> displacement of its centre.
        sizes: Organ -> factor on its radii.
        kidneys: Whether the right and the left kidney are there.
        stomach_content: HU of what the stomach holds.
        stomach_air: y of the air-fluid level: everything in front of it is air.
        liver_lesions: Metastases or haemangiomas inside the liver.
        cysts: Renal cysts, partly outside the kidney.
        bowel: Small-bowel loops.
        calcified: Whether the aorta's wall holds calcium.
        lordosis: How far the lumbar spine bends forwards.
    """

    scale: Point
    fat: float
    visceral_fat: float
    tissue: Tissue
    offsets: dict[str, Point]
    sizes: dict[str, float]
    kidneys: tuple[bool, bool]
    stomach_content: float
    stomach_air: float
    liver_lesions: tuple[Blob, ...]
    cysts: tuple[Blob, ...]
    bowel: tuple[Blob, ...]
    calcified: bool
    lordosis: float


MOBILE = {"liver": 6.0, "spleen": 6.0, "kidney_right": 7.0, "kidney_left": 7.0, "aorta": 2.5, "stomach": 7.0, "pancreas": 5.0}
"""Standard deviation of each organ's place, mm."""


def draw_patient(rng: np.random.Generator, *, phase: str | None = None) -> Patient:
    """Draws one patient; about one in twelve has lost a kidney, one in three has liver lesions, one in four a renal cyst.

    With a `phase`, one of `PHASES`, it is scanned in that one, after drinking water; else phase and content of the stomach are drawn, too.
    """
    body = rng.normal(1, 0.05)
    sizes = {organ: float(np.clip(rng.normal(1, 0.08), 0.82, 1.2)) for organ in MOBILE}
    sizes["stomach"] = float(rng.uniform(0.72, 1.15))
    sizes["spleen"] *= 1.3 if rng.random() < 0.1 else 1.0
    lost = rng.random()
    return Patient(
        scale=as_point(np.clip(body * rng.normal(1, 0.03), 0.85, 1.12) for _ in range(3)),
        fat=float(rng.uniform(8, 30)),
        visceral_fat=float(rng.uniform(-108, -85)),
        tissue=_draw_tissue(rng, phase),
        offsets={organ: as_point(np.clip(rng.normal(0, sd, 3), -1.6 * sd, 1.6 * sd)) for organ, sd in MOBILE.items()},
        sizes=sizes,
        kidneys=(lost > 0.04, not 0.04 <= lost <= 0.08),
        stomach_content=_draw_content(rng, water=phase is not None),
        stomach_air=float(rng.uniform(-62, -32)),
        liver_lesions=_draw_lesions(rng),
        cysts=_draw_cysts(rng),
        bowel=_draw_bowel(rng),
        calcified=bool(rng.random() < 0.35),
        lordosis=float(rng.uniform(2, 9)),
    )


def _draw_content(rng: np.random.Generator, *, water: bool) -> float:
    """HU of water, of food or of a contrast medium in the stomach; as many numbers are drawn where it is water in any case."""
    contents = [rng.uniform(5, 30), rng.uniform(30, 60), rng.uniform(180, 320)]
    drawn = rng.choice(contents, p=[0.55, 0.3, 0.15])
    return float(contents[0] if water else drawn)


def _draw_tissue(rng: np.random.Generator, phase: str | None) -> Tissue:
    phases = list(PHASES.values())
    drawn = phases[rng.choice(len(phases), p=[share for share, _ in phases])]  # also where it is given: all else is drawn alike then
    base = (drawn if phase is None else PHASES[phase])[1]
    values = {name: float(value * rng.normal(1, 0.07)) for name, value in vars(base).items()}
    if rng.random() < 0.15:
        values["liver"] -= rng.uniform(15, 40)  # fatty liver
    return Tissue(**values)


def _draw_lesions(rng: np.random.Generator) -> tuple[Blob, ...]:
    n = int(rng.integers(1, 6)) if rng.random() < 0.35 else 0
    darker = rng.uniform(-65, -30)
    boxes = ((-105, -30), (-50, 35), (5, 65))
    return tuple(
        Blob(as_point(rng.uniform(*side) for side in boxes), _radii(rng, 5, 17), float(darker + rng.normal(0, 6))) for _ in range(n)
    )


def _draw_cysts(rng: np.random.Generator) -> tuple[Blob, ...]:
    n = int(rng.integers(1, 4)) if rng.random() < 0.25 else 0
    boxes = ((66, 86), (28, 60), (-45, 35))
    cysts = []
    for side in rng.choice([-1.0, 1.0], n):
        away, y, z = (float(rng.uniform(*box)) for box in boxes)
        cysts.append(Blob((float(side) * away, y, z), _radii(rng, 6, 16), 6.0))
    return tuple(cysts)


def _draw_bowel(rng: np.random.Generator) -> tuple[Blob, ...]:
    boxes = ((-72, 78), (-62, 4), (-125, -22))
    loops = []
    for _ in range(int(rng.integers(38, 56))):
        centre = as_point(rng.uniform(*box) for box in boxes)
        loops.append(Blob(centre, _radii(rng, 10, 20), float(rng.choice([18, 35, 45, 220], p=[0.4, 0.3, 0.2, 0.1]))))
    return tuple(loops)


def _radii(rng: np.random.Generator, low: float, high: float) -> Point:
    radius = rng.uniform(low, high)
    return as_point(radius * rng.uniform(0.8, 1.25) for _ in range(3))
