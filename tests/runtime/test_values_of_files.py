"""Values that no plan, run, fingerprint or choice can have: refused by file and field, also where the digest was removed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import factories
import pytest

from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import CaseFingerprint, Choice, Fingerprint, Plan, PostProcessing, RunRecord, Score
from autoseg.schema.scores import Calibration

PLAN = factories.make_plan()
RECORD = factories.make_job(PLAN)
CASE = CaseFingerprint("a", (3, 4, 5), (2.5, 0.8, 0.7), 0.5, 2, (7, 9))
FINGERPRINT = Fingerprint((CASE,), PLAN.intensities)
STEPS, TEMPERATURE = {"ball": PostProcessing(10.0, 1)}, {"2d__Trainer": Calibration(1.5)}
CHOICE = Choice({"ball": ("2d__Trainer",)}, ("0", "1"), {}, 4, postprocessing=STEPS, calibration=TEMPERATURE)
IN_PLAN: list[tuple[Sequence[str | int], Any, str]] = [
    (["intensities"], [], "intensities: expected those of at least one channel"),
    (["intensities", 0, "std"], -1.0, "intensities: std"),
    (["intensities", 0, "mean"], None, "intensities: mean"),
    (["transpose"], [0, 0, 1], "transpose"),
    (["transpose"], [0, 1, 3], "transpose"),
    (["channels"], [], "channels"),
    (["channels"], ["MR", "T2"], "intensities: expected those of 2 channels"),
    (["orientation"], "SPX", "orientation"),
    (["lateral_axis"], 3, "lateral_axis"),
    (["labels", "members"], [[2], [2]], "labels: members"),
    (["labels", "members"], [[2]], "labels: members"),
    (["labels", "members"], [[-2], [5]], "labels: members"),
    (["labels", "names"], ["ball", "ball"], "labels: names"),
    (["labels", "ignore"], 5, "labels: ignore"),
]
IN_CONFIGURATION: list[tuple[str, Any, str]] = [
    ("spacing", [0.0, 1.0, 1.0], "spacing: expected millimetres above 0"),
    ("spacing", [-1.0, 1.0, 1.0], "spacing"),
    ("spacing", [None, 1.0, 1.0], "spacing"),
    ("spacing", [1.0, 1.0], "spacing: expected 3 numbers"),
    ("patch_size", [0, 8, 8], "patch_size"),
    ("patch_size", [8, 8], "patch_size: expected 3 numbers"),
    ("patch_size", [], "patch_size: expected 3 numbers"),
    ("batch_size", 0, "batch_size"),
    ("dim", 4, "dim"),
    ("slices", 2, "slices: expected an odd number"),
    ("normalization", [], "mask_normalization"),
    ("mask_normalization", [False, True], "mask_normalization"),
    ("mirroring", {"axes": [0, 0]}, "mirroring: axes"),
]
IN_RUN: list[tuple[Sequence[str | int], Any, str]] = [
    (["fold"], "-1", "fold: expected a number from 0 on"),
    (["seed"], -1, "seed"),
    (["split", "train"], [], "split: train"),
    (["split", "train"], ["a", "a"], "train: expected each case once"),
    (["split", "val"], ["a"], "split: expected cases that are either trained on or held out"),
    (["budget", "amount"], None, "Budget"),
    (["options", "momentum"], 1.5, "momentum"),
    (["options", "learning_rate"], None, "learning_rate"),
    (["options", "augmentation", "rotation_degrees"], None, "rotation_degrees"),
    (["plan", "transpose"], [0, 0, 1], "transpose"),
    (["configuration", "spacing"], [0.0, 1.0, 1.0], "spacing"),
]
IN_FINGERPRINT: list[tuple[Sequence[str | int], Any, str]] = [
    (["cases", 0, "spacing"], [0.0, 1.0, 1.0], "a: spacing"),
    (["cases", 0, "spacing"], [1.0, 1.0], "a: spacing: expected 3 numbers"),
    (["cases", 0, "shape"], [3, 0, 5], "a: shape"),
    (["cases", 0, "voxels"], [-1, 2], "a: voxels"),
    (["cases", 0, "relative_size"], 1.5, "a: relative_size"),
    (["cases", 0, "lateral_axis"], 3, "a: lateral_axis"),
]
IN_CHOICE: list[tuple[Sequence[str | int], Any, str]] = [
    (["folds"], ["-1"], "fold: expected"),
    (["folds"], ["0", "0"], "folds: expected each fold once"),
    (["organs", "ball"], ["2d__Trainer", "2d__Trainer"], "ball: expected each model once"),
    (["postprocessing", "ball", "min_volume_mm3"], -1.0, "min_volume_mm3"),
    (["postprocessing", "ball", "components"], 0, "components"),
    (["calibration", "2d__Trainer", "temperature"], 0.0, "temperature"),
    (["max_members"], 0, "max_members"),
]
CHANGES = [
    *((PLAN, where, value, said) for where, value, said in IN_PLAN),
    *((PLAN, ["configurations", "3d_fullres", field], value, said) for field, value, said in IN_CONFIGURATION),
    *((RECORD, where, value, said) for where, value, said in IN_RUN),
    *((FINGERPRINT, where, value, said) for where, value, said in IN_FINGERPRINT),
    *((CHOICE, where, value, said) for where, value, said in IN_CHOICE),
]


@pytest.mark.parametrize(("kind", "where", "value", "said"), CHANGES)
def test_values_that_cannot_be_are_refused_by_file_and_field(tmp_path: Path, kind: Any, where: list, value: Any, said: str) -> None:
    path = tmp_path / "edited.json"
    write_json(path, kind)
    content = json.loads(path.read_text())
    del content["digest"]
    part = content
    for key in where[:-1]:
        part = part[key]
    path.write_text(json.dumps(content))
    assert type(read_json(path, type(kind))) in (Plan, RunRecord, Fingerprint, Choice)
    part[where[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"edited\.json: .*" + said):
        read_json(path, type(kind))


def test_scores_are_shares_or_not_there() -> None:
    assert math.isnan(Score("a", "ball", math.nan, math.nan, 0, 0).dice)
    for dice in (-0.1, 1.1, math.inf):
        with pytest.raises(ValueError, match="dice: expected a share of 0 to 1"):
            Score("a", "ball", dice, 0.5, 1, 1)
