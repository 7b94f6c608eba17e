"""Anatomy of the phantom: an upper abdomen in millimetres, origin in the body's axis at the height of the left kidney's hilum.

The body wall is about 310 x 220 mm in the reference. Coordinates are as in `autoseg.data.phantom.shapes`; the right side of the patient
is negative x. Labelled organs are in `ORGANS`; everything else (bones, muscles, lungs, heart, bowel, pancreas, vessels) is scenery.
"""

from __future__ import annotations

import numpy as np

from .patient import Patient
from .shapes import Canvas, Point, Space, as_point, column, ellipsoid, smooth_union, tube

ORGANS = ("liver", "spleen", "kidney_right", "kidney_left", "aorta", "stomach")
"""Labelled organs; label values are 1, 2, ... in this order."""

WALL_OUTER, WALL_INNER = (146.0, 101.0), (133.0, 87.0)
SPINE_Y = 49.0

Distances = dict[str, np.ndarray]


def paint_abdomen(canvas: Canvas, space: Space, patient: Patient) -> None:
    """Paints a whole patient onto `canvas`, from the skin inwards."""
    inner = column(space, (0, 0), WALL_INNER, 2.4)
    organs = place_organs(space, patient, inner)
    paint_wall(canvas, space, patient, inner)
    paint_spine(canvas, space, patient)
    paint_ribs(canvas, space)
    paint_bowel(canvas, space, patient, inner)
    paint_vessels(canvas, space, patient)
    paint_organs(canvas, space, patient, organs)
    paint_chest(canvas, space, organs, inner)


def diaphragm(space: Space) -> np.ndarray:
    """Height of the diaphragm ``(Z, Y, X)`` in mm: a higher dome on the right, a lower one on the left."""
    right = 92 - 92 * (((space.x + 58) / 98) ** 2 + ((space.y + 8) / 96) ** 2)
    left = 80 - 80 * (((space.x - 64) / 92) ** 2 + ((space.y + 4) / 92) ** 2)
    return np.maximum(right, left)


def place_organs(space: Space, patient: Patient, inner: np.ndarray) -> Distances:
    """Distances of the labelled organs, cut so that no two overlap and none leaves the cavity; `inner` is that to the wall's inside."""
    below = 0.7 * (space.z - diaphragm(space)) + 3
    spine = column(space, (0, SPINE_Y - 3), (25, 22), 2.3)
    kidney_right = np.maximum(kidney(space, patient, "kidney_right"), 2 - spine)
    kidney_left = np.maximum(kidney(space, patient, "kidney_left"), 2 - spine)
    aorta = _aorta(space, patient)
    liver = np.maximum.reduce([_liver(space, patient), inner + 4, below, 5 - kidney_right, 6 - aorta, 3 - spine])
    spleen = np.maximum.reduce([_spleen(space, patient), inner + 5, below, 5 - kidney_left, 4 - liver])
    stomach = np.maximum.reduce([_stomach(space, patient), inner + 6, below + 1, 2 - liver, 3 - spleen, 3 - kidney_left, 4 - aorta])
    placed = (liver, spleen, kidney_right, kidney_left, aorta, stomach)
    return dict(zip(ORGANS, placed, strict=True))


def _at(patient: Patient, organ: str, centre: Point) -> Point:
    return as_point(c + o for c, o in zip(centre, patient.offsets[organ], strict=True))


def _liver(space: Space, patient: Patient) -> np.ndarray:
    size = patient.sizes["liver"]
    x, y, z = _at(patient, "liver", (-64, -4, 26))
    right = ellipsoid(space, (x, y, z), (72 * size, 80 * size, 82 * size))
    visceral = 0.55 * (space.x - x - 34) + 0.32 * (space.y - y - 14) - 0.77 * (space.z - z + 16)
    right = -smooth_union(-right, -visceral, 14)
    tilt = Space(space.x, space.y, space.z - 0.18 * (space.x - x))
    left = ellipsoid(tilt, (x + 72, y - 34, z + 10), (74 * size, 36 * size, 30 * size))
    return smooth_union(right, left, 16)


def _spleen(space: Space, patient: Patient) -> np.ndarray:
    size = patient.sizes["spleen"]
    x, y, z = _at(patient, "spleen", (94, 36, 40))
    turned = Space(space.x + 0.35 * (space.y - y), space.y - 0.25 * (space.x - x), space.z - 0.3 * (space.y - y))
    outer = ellipsoid(turned, (x, y, z), (33 * size, 51 * size, 51 * size))
    hollow = ellipsoid(turned, (x - 38 * size, y - 4, z - 6), (30 * size, 44 * size, 60 * size))
    return -smooth_union(-outer, hollow, 8)


def kidney(space: Space, patient: Patient, name: str) -> np.ndarray:
    """Distance to a kidney: a tilted ellipsoid with a hilum towards the aorta; far away where the patient has lost it."""
    side = 1.0 if name.endswith("left") else -1.0
    if not patient.kidneys[side > 0]:
        return np.full(space.x.shape, 1e3, np.float32)
    u, v, w = _kidney_axes(space, patient, name)
    size = patient.sizes[name]
    body = ellipsoid(Space(u, v, w), (0, 0, 0), (27 * size, 23 * size, 51 * size))
    hilum = ellipsoid(Space(u, v, w), (-24 * size, -7, 0), (19 * size, 10, 17 * size))
    return -smooth_union(-body, hilum, 5)


def _kidney_axes(space: Space, patient: Patient, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates along a kidney's own axes: away from the spine, backwards, upwards; the upper pole lies medial and behind."""
    side, z0 = (1.0, 2.0) if name.endswith("left") else (-1.0, -14.0)
    x, y, z = _at(patient, name, (side * 61, 42, z0))
    w = space.z - z
    return side * (space.x - x) + 0.2 * w, space.y - y - 0.13 * w + 0.3 * side * (space.x - x), w


def _aorta(space: Space, patient: Patient) -> np.ndarray:
    dx, dy, _ = patient.offsets["aorta"]
    size, bend = patient.sizes["aorta"], patient.lordosis
    path = [(3 + dx, 17 + dy - bend, -130.0), (7 + dx, 18 + dy - bend, -40.0), (10 + dx, 19 + dy, 40.0), (19 + dx, 27 + dy, 140.0)]
    return tube(space, path, [9 * size, 10 * size, 11.5 * size, 12.5 * size])


def _stomach(space: Space, patient: Patient) -> np.ndarray:
    size = patient.sizes["stomach"]
    path = [(60, 22, 62), (66, -18, 40), (50, -48, 10), (10, -55, -10), (-24, -42, -6)]
    return tube(space, [_at(patient, "stomach", point) for point in path], [r * size for r in (31, 31, 25, 18, 12)])


def paint_wall(canvas: Canvas, space: Space, patient: Patient, inner: np.ndarray) -> None:
    """Skin, fat, the muscles of the trunk, and the fat between the organs."""
    outer = column(space, (0, 0), WALL_OUTER, 2.4)
    skin = column(space, (0, 0), (WALL_OUTER[0] + patient.fat * 1.05, WALL_OUTER[1] + patient.fat * 0.9), 2.25)
    canvas.paint(skin, 20)
    canvas.paint(skin + 3, patient.visceral_fat - 6)
    canvas.paint(outer, 54)
    canvas.paint(np.abs(outer + 6) - 0.8, -60, strength=0.7)
    canvas.paint(inner, patient.visceral_fat)
    psoas_growth = np.clip((50 - space.z) / 110, 0.25, 1.25)
    for side in (-1, 1):
        canvas.paint(column(space, (side * 34, 81), (29, 17), 2.6), 52)
        canvas.paint((column(space, (side * 33, 50), (17, 19)) / 17 + 1 - psoas_growth) * 17, 58)
        canvas.paint(column(space, (side * 66, 77), (20, 10)), 52)


def paint_bowel(canvas: Canvas, space: Space, patient: Patient, inner: np.ndarray) -> None:
    """Colon with gas and stool, small-bowel loops, duodenum and pancreas."""
    for loop in patient.bowel:
        at = space.near(loop.centre, as_point(radius + canvas.softness for radius in loop.radii))
        distance = np.maximum(ellipsoid(space.part(at), loop.centre, loop.radii), inner[at] + 4)
        canvas.paint(distance, 62, at=at)
        canvas.paint(distance + 3, loop.hu, at=at)
    colon = (
        ([(-98, 8, -140), (-100, 8, -60), (-84, -22, -42), (-40, -70, -34), (20, -74, -30)], [23, 22, 19, 16, 15]),
        ([(20, -74, -30), (70, -60, -8), (100, -8, 4), (104, 24, -30), (102, 24, -140)], [15, 16, 17, 14, 13]),
    )
    haustra = 2.5 * np.sin(space.x / 7) * np.sin(space.z / 8)
    for path, radii in colon:
        distance = np.maximum(tube(space, path, radii), inner + 4) + haustra
        canvas.paint(distance, 55)
        canvas.paint(distance + 3, 25 + 20 * np.sin(space.x / 3.1) * np.sin(space.y / 3.7))
        level = np.interp(space.x, [-100, -40, 70, 100], [-4, -74, -64, 6]).astype(np.float32)
        canvas.paint(np.maximum(distance + 3.5, space.y - level), -850)
    pancreas = [_at(patient, "pancreas", point) for point in ((-30, -10, -18), (-8, -15, -4), (26, -4, 10), (72, 16, 28))]
    canvas.paint(tube(space, [(-30, -18, 4), (-44, -6, -16), (-34, 6, -48), (10, 2, -58)], [12, 13, 12, 11]), 45)
    canvas.paint(tube(space, pancreas, [14, 8.5, 10, 8]) + 1.5 * np.sin(space.x / 4) * np.sin(space.z / 4), patient.tissue.pancreas)


def paint_vessels(canvas: Canvas, space: Space, patient: Patient) -> None:
    """Inferior vena cava, superior mesenteric artery and vein, renal veins, and the spleen's vein behind the pancreas."""
    tissue, bend = patient.tissue, patient.lordosis
    veins = 0.8 * tissue.veins + 8
    canvas.paint(tube(space, [(-18, 18 - bend, -140), (-20, 16, 0), (-24, 6, 60), (-20, -8, 130)], [11, 12, 13, 13]), veins)
    canvas.paint(tube(space, [(6, -2, 4), (4, -12, -30), (0, -24, -110)], [4.5, 4, 3.5]), tissue.aorta)
    canvas.paint(tube(space, [(-10, -8, -4), (-10, -14, -40), (-8, -26, -110)], [6.5, 6, 5]), tissue.veins)
    canvas.paint(tube(space, [(-12, -6, 0), (30, 4, 12), (84, 26, 34)], [6, 5, 4]), tissue.veins)
    for present, side, z in zip(patient.kidneys, (-1, 1), (-12, 4), strict=True):
        if present:
            canvas.paint(tube(space, [(side * 2, 8, z), (side * 26, 20, z), (side * 44, 32, z)], [5, 5, 4.5]), veins)


def paint_organs(canvas: Canvas, space: Space, patient: Patient, organs: Distances) -> None:
    """The labelled organs with their vessels, contents and disease."""
    tissue = patient.tissue
    labels = {name: value for value, name in enumerate(ORGANS, start=1)}
    _paint_liver(canvas, space, patient, organs["liver"])
    canvas.paint(organs["spleen"], tissue.spleen, labels["spleen"])
    stomach = organs["stomach"]
    canvas.paint(stomach, tissue.stomach_wall, labels["stomach"])
    canvas.paint(stomach + 4, patient.stomach_content)
    canvas.paint(np.maximum(stomach + 4.5, space.y - patient.stomach_air), -930)
    for name in ("kidney_right", "kidney_left"):
        _paint_kidney(canvas, space, patient, organs[name], name)
    canvas.paint(organs["aorta"], tissue.aorta, labels["aorta"])
    if patient.calcified:
        spots = np.sin(space.z / 9 + 2) + np.sin(space.x / 3) * np.sin(space.y / 4)
        canvas.paint(np.maximum(np.abs(organs["aorta"] + 1.2) - 1.4, 3 * (1.1 - spots)), 620)


def _paint_liver(canvas: Canvas, space: Space, patient: Patient, liver: np.ndarray) -> None:
    tissue = patient.tissue
    canvas.paint(liver, tissue.liver, ORGANS.index("liver") + 1)
    x, y, z = patient.offsets["liver"]
    branches = (
        ([(-14, -14, -6), (-26, -16, 22), (-60, -8, 30), (-92, 14, 18)], [7, 7, 4.5, 2.5]),
        ([(-26, -16, 22), (4, -36, 36), (40, -46, 40)], [6, 4, 2]),
        ([(-60, -8, 30), (-88, -36, 20)], [4, 2]),
        ([(-24, 2, 72), (-64, 10, 58), (-98, 16, 44)], [7, 4.5, 2]),
        ([(-24, 0, 72), (-52, -34, 56), (-62, -56, 34)], [6, 4, 2]),
        ([(-22, -2, 72), (6, -34, 56)], [6, 3]),
    )
    for path, radii in branches:
        vessel = tube(space, [(a + x, b + y, c + z) for a, b, c in path], radii)
        canvas.paint(np.maximum(vessel, liver + 2), tissue.veins)
    for lesion in patient.liver_lesions:
        canvas.paint(np.maximum(ellipsoid(space, lesion.centre, lesion.radii), liver + 1), tissue.liver + lesion.hu)
    canvas.paint(np.maximum(ellipsoid(space, (-44 + x, -46 + y, -10 + z), (13, 19, 23)), 1 - liver), 9)


def _paint_kidney(canvas: Canvas, space: Space, patient: Patient, distance: np.ndarray, name: str) -> None:
    if not patient.kidneys[name.endswith("left")]:
        return
    tissue = patient.tissue
    u, v, w = _kidney_axes(space, patient, name)
    canvas.paint(distance, tissue.kidney, ORGANS.index(name) + 1)
    pyramids = np.sin(3 * np.arctan2(v, u + 14)) * np.cos(w / 6)
    canvas.paint(np.maximum(np.abs(distance + 12) - 5, -3 * pyramids), tissue.medulla)
    canvas.paint(np.maximum(ellipsoid(Space(u, v, w), (-22, -5, -2), (11, 6, 9)), 1 - distance), 14)
    for cyst in patient.cysts:
        if (cyst.centre[0] > 0) == name.endswith("left"):
            canvas.paint(ellipsoid(space, cyst.centre, cyst.radii), cyst.hu)


def paint_chest(canvas: Canvas, space: Space, organs: Distances, inner: np.ndarray) -> None:
    """The lower lungs with their vessels, and the heart on the diaphragm."""
    above = 0.7 * (diaphragm(space) - space.z) + 0.5
    heart = np.maximum(ellipsoid(space, (26, -34, 112), (66, 50, 46)), above - 1)
    mediastinum = smooth_union(column(space, (4, 36), (30, 34)), heart, 18)
    back = column(space, (0, 86), (40, 19), 3)
    lung = np.maximum.reduce([inner + 1, above, 3 - mediastinum, 2 - back, *(1.5 - distance for distance in organs.values())])
    texture = 40 * np.sin(space.x / 5.3) * np.sin(space.y / 6.1) * np.sin(space.z / 9.7)
    canvas.paint(lung, -860 + 70 * space.y / 87 + texture)
    vessels = np.sin(space.x / 6.2 + 1) + np.sin(space.y / 7.1) + np.sin((space.z + 0.6 * space.x) / 11)
    canvas.paint(np.maximum(lung + 4, 5 * (2.45 - vessels)), -250)
    canvas.paint(np.maximum(heart, 1 - organs["liver"]), 0.5 * float(canvas.hu[organs["aorta"] < -4].mean()) + 45)


def paint_spine(canvas: Canvas, space: Space, patient: Patient) -> None:
    """Vertebral bodies with discs, canal, arch, transverse and spinous processes."""
    bend = patient.lordosis * np.cos(np.clip((space.z + 60) / 110, -1.5, 1.5))
    local = Space(space.x, space.y + bend, space.z)
    phase = (local.z + 8) % 34 - 17
    level = np.abs(phase) - 12.5
    body = column(local, (0, SPINE_Y), (23, 17.5), 2.3)
    arch = column(local, (0, SPINE_Y + 26), (15, 13))
    canvas.paint(body, 82)
    canvas.paint(np.maximum(body, level), 400)
    canvas.paint(np.maximum(body + 3.2, level + 2), 175)
    canvas.paint(np.maximum(arch, np.abs(phase) - 11), 390)
    for side in (-1, 1):
        process = tube(local, [(side * 12, SPINE_Y + 22, 0), (side * 42, SPINE_Y + 27, 0)], [6, 3.5])
        canvas.paint(np.maximum(process, np.abs(phase) - 6), 330)
    canvas.paint(np.maximum(column(local, (0, SPINE_Y + 42), (3.5, 13)), np.abs(phase + 4) - 11), 330)
    canvas.paint(column(local, (0, SPINE_Y + 25.5), (10, 8.5)), 12)
    canvas.paint(column(local, (0, SPINE_Y + 25.5), (5, 4.5)), 34)


def paint_ribs(canvas: Canvas, space: Space) -> None:
    """Ribs that slope down from the spine to the front inside the body wall, with a costal margin that rises towards the middle."""
    ring = column(space, (0, 0), ((WALL_INNER[0] + WALL_OUTER[0]) / 2, (WALL_INNER[1] + WALL_OUTER[1]) / 2), 2.4)
    sloped = space.z - 0.42 * (space.y - 87)
    across = (np.abs(sloped % 27 - 13.5) - 5.2) * 0.9
    margin = np.maximum(-18 - space.z - 0.1 * space.y, -40 - space.y + 45 * np.clip((62 - space.z) / 40, 0, 1))
    rib = np.maximum.reduce([np.abs(ring) - 4.2, across, margin, 24 - np.abs(space.x)])
    canvas.paint(rib, 330)
    canvas.paint(rib + 2.4, 150)
