"""A made-up report with every part: three organs, one of them with a name that must be escaped, four candidates, twelve cases."""

from __future__ import annotations

import numpy as np
from factories import make_configuration, make_plan

from autoseg.report import CasePicture, DatasetFacts, Missing, Plane, Report, RunFacts
from autoseg.schema import (
    Calibration,
    CandidateComparison,
    Choice,
    DiceRegression,
    Evidence,
    Labels,
    NestedEstimate,
    PostProcessing,
    Reason,
    Split,
)
from autoseg.schema.run_record import RunEnvironment
from autoseg.selection.quality_estimation import EstimatedDice

AWKWARD = '<b>organ & "x"'
ORGANS = Labels(("liver", AWKWARD, "spleen"), ((1,), (2,), (6,)))
MODELS = ("2d__Trainer", "3d_fullres__Trainer", "3d_fullres__AdversarialTrainer")
AVERAGE = "2d__Trainer + 3d_fullres__Trainer"
CASES = tuple(f"case_{number:02d}" for number in range(12))


def scores() -> dict[str, dict[str, dict[str, float]]]:
    """Model to organ to case to Dice; the spleen is missing from the last case."""
    rng = np.random.default_rng(4)
    hard = {case: 0.12 * rng.random() for case in CASES}
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for skill, model in zip((0.82, 0.88, 0.86), MODELS, strict=True):
        scores[model] = {}
        for place, organ in enumerate(ORGANS.names):
            values = {case: float(np.clip(skill - 0.03 * place - hard[case] + rng.normal(0, 0.02), 0, 1)) for case in CASES}
            scores[model][organ] = values
        scores[model]["spleen"][CASES[-1]] = float("nan")
    return scores


def choice() -> Choice:
    """The average segments the liver, a single model the others."""
    organs = {"liver": tuple(AVERAGE.split(" + ")), AWKWARD: (MODELS[1],), "spleen": (MODELS[1],)}
    evidence, table = {}, {name: {} for name in (*MODELS, AVERAGE)}
    for organ, members in organs.items():
        compared = {}
        for name, of_organs in {**scores(), AVERAGE: scores()[MODELS[1]]}.items():
            mean = float(np.nanmean(list(of_organs[organ].values()))) + (0.01 if name == AVERAGE else 0)
            table[name][organ] = mean
            compared[name] = CandidateComparison(mean, mean - 0.02, mean + 0.018, 0.031, 0.004, 0.012)
        chosen = " + ".join(members)
        expected = NestedEstimate(compared[chosen].mean - 0.004, 0.801, 0.866, compared[chosen].mean, 12, {"0": chosen, "1": MODELS[1]})
        evidence[organ] = Evidence(chosen, 12, compared, expected)
    return Choice(
        organs,
        ("0", "1"),
        table,
        12,
        reasons={organ: f"{' + '.join(members)}: mean Dice with support over {MODELS[0]}" for organ, members in organs.items()},
        evidence=evidence,
        seconds={MODELS[0]: 0.8, MODELS[1]: 4.2, AVERAGE: 5.0},
        postprocessing={
            "liver": PostProcessing(500.0, 1, True, "mean Dice 0.861 instead of 0.853, better in 5 cases, worse in none, p = 0.031")
        },
        calibration={MODELS[0]: Calibration(1.4, 0.08, 0.02), MODELS[1]: Calibration(1.1, 0.05, 0.03)},
        dice_regression={organ: DiceRegression(1.2, -0.15, 0.024, 0.71, 12) for organ in organs},
    )


def picture(case: str, why: str) -> CasePicture:
    """Three planes of 20 x 30 pixels with a square organ."""
    mask = np.zeros((20, 30), bool)
    mask[5:12, 8:19] = True
    grey = np.random.default_rng(1).integers(30, 120, mask.shape).astype(np.uint8)
    maps = ({"liver": mask, AWKWARD: np.roll(mask, 9, 0)}, {"liver": np.roll(mask, 2, 1)})
    planes = [Plane(f"{name} 3 / 9", grey, (2.0, 1.0), *maps) for name in ("axial", "coronal", "sagittal")]
    return CasePicture(case, why, "0", tuple(planes), {"liver": 0.81, AWKWARD: 0.7}, "CT window: width 400 HU, level 50 HU")


def run(model: str, fold: str) -> RunFacts:
    """A training of ten validation intervals."""
    rows = []
    for place in range(1, 11):
        good = 1 - 0.8 / place
        losses = {"train_loss": 1.6 / place, "validation_loss": 1.7 / place + 0.1}
        dice = {f"dice_{organ}": good - 0.1 * number for number, organ in enumerate(ORGANS.names)}
        rows.append(
            {"validation_interval": place, "iteration": 25.0 * place, **losses, "mean_dice": good - 0.1, **dice, "seconds": 60.0 * place}
        )
    facts = {"seed": "0", "batch": "2" if model == MODELS[0] else "4"}
    environment = RunEnvironment("Quick <GPU>", "cuda", "2.9.1", (3 + int(fold)) * 10**9)
    return RunFacts(
        *(model, fold, tuple(rows), f"autoseg_train Dataset007_Abdomen {model.split('__')[0]} {fold}", facts, {"case_00": 0.8}),
        validated=True,
        run_environment=() if model == MODELS[0] else (environment,),
    )


def full_report() -> Report:
    """A report with every part."""
    plan = make_plan(make_configuration(2), make_configuration(3), labels=ORGANS, channels=("CT",))
    rng = np.random.default_rng(2)
    reasons = (Reason("all", "spacing", "2 x 1 x 1", "median over the cases"), Reason("2d", "patch", "56 x 40", "fits <8> GB"))
    facts = DatasetFacts(
        "Dataset007_Abdomen",
        ("CT",),
        ORGANS,
        12,
        10,
        shapes=tuple((40 + place, 128, 128) for place in range(12)),
        spacings=((2.5, 0.8, 0.8),) * 12,
        orientations={"SPL": 12},
        volumes={
            "liver": tuple(rng.normal(1500, 200, 12)),
            AWKWARD: tuple(rng.normal(4, 1, 12)),
            "spleen": (*rng.normal(200, 30, 11), 0.0),
        },
        annotated=dict.fromkeys(ORGANS.names, 12),
        intensities=plan.intensities,
    )
    return Report(
        dataset=facts,
        made="2026-01-02 10:00",
        chosen="2026-01-01 09:00",
        plan=plan.__class__(**{**plan.__dict__, "reasons": reasons}),
        parameters={"2d": 1_930_000, MODELS[0]: 1_930_000},
        choice=choice(),
        scores=scores(),
        folds_of={case: str(place % 2) for place, case in enumerate(CASES)},
        runs=tuple(run(model, fold) for model in MODELS for fold in "01"),
        pictures=(picture(CASES[0], "Best"), picture(CASES[1], "Worst")),
        estimated_dice={"liver": tuple(EstimatedDice(case, 0.6 + 0.02 * place, 0.62 + 0.02 * place) for place, case in enumerate(CASES))},
        splits=(Split(CASES[6:], CASES[:6]), Split(CASES[:6], CASES[6:])),
        commands=("autoseg_plan_and_preprocess -d Dataset007_Abdomen", "autoseg_report Dataset007_Abdomen"),
        versions={"autoseg": "0.1.0", "Python": "3.11"},
        files={"results/plan.json": "a" * 64},
        missing=(Missing("something that is not there", "autoseg_train 7 2d 2"),),
    )
