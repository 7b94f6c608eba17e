"""When mirrored copies are averaged by default, and what is said of it."""

from __future__ import annotations

import math

import pytest

from autoseg.runtime.case_contents import checkpoint_id
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import write_json
from autoseg.schema.cheaper_prediction import NO_MIRRORING, CheaperCase, CheaperValidation, DiceLoss
from autoseg.selection.cheaper_ways import describe_mirroring, dice_loss, is_mirroring_worth_it, losses

NAN = math.nan


def cases(*gains: float, organ: str = "liver") -> list[CheaperCase]:
    return [CheaperCase(f"c{n}", NO_MIRRORING, f"p{n}", {organ: 0.5}, {organ: 0.5 + gain}, 1.0, 8.0) for n, gain in enumerate(gains)]


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ((0.006, 0.007, 0.008, 0.006, 0.007), True),
        ((0.003, 0.003, 0.002, 0.003, 0.003), False),  # sure, and too little
        ((0.06, -0.05, 0.04, -0.03, 0.01), False),  # enough in the mean, by chance
        ((0.09, -0.01, 0.01), True),  # much
        ((0.001, 0.001), True),  # of two patients nothing is concluded
        ((NAN, NAN, NAN, NAN), True),
    ],
)
def test_mirroring_is_worth_it_where_it_gains_enough_and_not_by_chance(gains: tuple[float, ...], expected: bool) -> None:
    assert is_mirroring_worth_it({NO_MIRRORING: dice_loss(cases(*gains))}) is expected


def test_models_without_a_measurement_mirror_and_say_nothing() -> None:
    assert is_mirroring_worth_it({}) and describe_mirroring({}, mirror=True, asked=None) == ""


def test_one_organ_that_needs_mirrored_copies_is_enough() -> None:
    loss = DiceLoss(0.002, 0.001, 0.003, 9, {"liver": 0.0, "vessel": 0.03})
    assert is_mirroring_worth_it({NO_MIRRORING: loss})


def test_a_false_alarm_counts_as_lost_dice() -> None:
    one = CheaperCase("c", NO_MIRRORING, "p", {"liver": 0.9, "cyst": 0.0, "stone": NAN}, {"liver": 0.9, "cyst": NAN, "stone": NAN})
    loss = dice_loss([one])
    assert loss.organs["cyst"] == 1.0 and math.isnan(loss.organs["stone"]) and loss.mean == pytest.approx(0.5)


def test_the_reason_is_said_with_interval_and_time() -> None:
    known = {NO_MIRRORING: dice_loss(cases(0.001, 0.002, 0.003))}
    said = describe_mirroring(known, mirror=False, asked=None)
    assert said.startswith("without mirrored copies: they gain +0.0020 Dice for 8.0 times the seconds (3 held-out patients, 95 % interval")
    assert said.endswith("--tta predicts with them")
    assert describe_mirroring(known, mirror=True, asked=True).startswith("with mirrored copies, as asked: they gain")


def test_folds_are_pooled_and_other_networks_do_not_count(tmp_path) -> None:
    model = ModelFolder(tmp_path / "3d_fullres__Trainer")
    for fold, network in (("0", "monday"), ("1", "monday"), ("2", "tuesday")):
        run = model.run(fold)
        run.validation.mkdir(parents=True)
        run.checkpoint.write_bytes(b"weights of monday")

        found = [CheaperCase(f"c{fold}", NO_MIRRORING, f"p{fold}", {"liver": 0.5}, {"liver": 0.6})]
        write_json(run.validation / "cheaper.json", CheaperValidation(checkpoint_id(run.checkpoint) if network == "monday" else "x", found))
    assert losses(tmp_path, model.name, "012")[NO_MIRRORING].patients == 2
