"""How often a rule keeps post-processing that is useless, and misses what is due, by simulation for several numbers of patients.

Run ``python benchmarks/postprocessing_rules.py``. Every simulated dataset has the seven proposals that labels of mostly one component give
(largest component, at most two, small components removed, holes filled, and holes filled with each of these), whose gains in Dice are drawn
patient by patient; effects that proposals share (a speck that three of them remove) are shared. The rules:

- corrected: that of versions before: two-sided test, Holm's correction for all proposals with different effects, no patient may lose more
  than those that change gain on average; where fewer than six change, one that gains suffices if none loses.
- taken: that of `autoseg.selection.postprocessing_choice`, as it is called by the choice: a sequence for components, a test for holes.
- one sequence: the same with all proposals in one sequence, so that holes are only tested where components passed.
- uncorrected: the best of all with one-sided p < 0.05.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from autoseg.evaluation.statistics import SMALLEST_TEST, holm, wilcoxon
from autoseg.schema import PostProcessing
from autoseg.selection.postprocessing_choice import FEWEST_CHANGED, LEVEL, SAME, SMALLEST_GAIN, proposals, select_postprocessing

PATIENTS = (6, 12, 30, 100)
TRIED = proposals([(60.0,)] * 54 + [(60.0, 5.0)] * 6)
"""Largest, at most two, small removed, holes, and holes with each."""

Gains = dict[PostProcessing, np.ndarray]
Rule = Callable[[Gains], PostProcessing | None]


def corrected(gains: Gains) -> PostProcessing | None:
    """The rule of earlier versions."""
    different = {one.round(9).tobytes(): name for name, one in reversed(gains.items()) if np.any(np.abs(one) > SAME)}
    tried = [name for name in gains if name in different.values()]
    accepted = {}
    for name, p in zip(tried, holm([wilcoxon(gains[name]) for name in tried]), strict=True):
        changed = gains[name][np.abs(gains[name]) > SAME]
        few = len(changed) < SMALLEST_TEST
        if gains[name].mean() > 0 and ((changed >= 0).all() if few else p < LEVEL and -changed.min() <= changed.mean()):
            accepted[name] = gains[name].mean()
    return max(accepted, key=accepted.__getitem__) if accepted else None


def in_sequence(gains: Gains) -> PostProcessing | None:
    """The rule of the choice."""
    before = np.full(len(next(iter(gains.values()))), 0.5)
    kept = select_postprocessing(before, {name: before + one for name, one in gains.items()}).kept
    return None if kept is None else kept.proposal


def one_sequence(gains: Gains) -> PostProcessing | None:
    """All proposals in one sequence."""
    accepted: dict[PostProcessing, float] = {}
    for name, one in gains.items():
        if np.count_nonzero(np.abs(one) > SAME) >= FEWEST_CHANGED:
            if not wilcoxon(one, one_sided=True) < LEVEL:
                break
            accepted[name] = float(one.mean())
    best = max(accepted, key=accepted.__getitem__, default=None)
    return best if best is not None and accepted[best] >= SMALLEST_GAIN else None


def uncorrected(gains: Gains) -> PostProcessing | None:
    """Every proposal for itself."""
    accepted = {name: one.mean() for name, one in gains.items() if wilcoxon(one, one_sided=True) < LEVEL}
    return max(accepted, key=accepted.__getitem__) if accepted else None


RULES: dict[str, Rule] = {"corrected": corrected, "taken": in_sequence, "one sequence": one_sequence, "uncorrected": uncorrected}


def effects(rng: np.random.Generator, n: int, *, share: float, gain: float, spread: float) -> np.ndarray:
    """Gains ``(n,)`` of an operation that changes a share of the patients, normally distributed there."""
    return np.where(rng.random(n) < share, rng.normal(gain, spread, n), 0.0)


def dataset(rng: np.random.Generator, n: int, *, speck: tuple[float, float, float], hole: tuple[float, float, float]) -> Gains:
    """Gains of all proposals on one simulated dataset; of specks and holes the share of patients, mean gain and its spread there."""
    names = ("share", "gain", "spread")
    largest = effects(rng, n, **dict(zip(names, speck, strict=True)))
    of_second = rng.random(n) < 0.3  # what the second largest component is, is left by keeping two
    small = np.where(rng.random(n) < 0.7, largest, 0.0)  # and what is large, by removing the small
    holes = effects(rng, n, **dict(zip(names, hole, strict=True)))
    alone = (largest, np.where(of_second, 0.0, largest), small)
    return dict(zip(TRIED, (*alone, holes, *(one + holes for one in alone)), strict=True))


NOTHING = (0.6, 0.0, 0.02)
SCENARIOS: dict[str, tuple[bool, dict[str, tuple[float, float, float]]]] = {
    "nothing helps, most patients change": (False, {"speck": NOTHING, "hole": NOTHING}),
    "nothing helps, few patients change": (False, {"speck": (0.1, 0.0, 0.02), "hole": (0.1, 0.0, 0.02)}),
    "components help as on left atria": (True, {"speck": (0.95, 0.03, 0.03), "hole": NOTHING}),
    "components help a little": (True, {"speck": (0.8, 0.01, 0.02), "hole": NOTHING}),
    "only filling holes helps, components rarely change": (True, {"speck": (0.02, 0.0, 0.02), "hole": (0.95, 0.03, 0.03)}),
    "only filling holes helps, components are luck": (True, {"speck": NOTHING, "hole": (0.95, 0.03, 0.03)}),
}
"""Whether something is due, and the share of patients, mean gain and spread of specks and holes."""


def wrong(rule: Rule, scenario: str, n: int, *, repetitions: int) -> float:
    """Share of simulated datasets of `n` patients on which a rule is wrong: keeps what is useless, or nothing of what is due."""
    due, made = SCENARIOS[scenario]
    errors = 0
    truth = {name: float(one.mean()) for name, one in dataset(np.random.default_rng(1), 100_000, **made).items()}
    for number in range(repetitions):
        kept = rule(dataset(np.random.default_rng([number, n]), n, **made))
        helps = kept is not None and truth[kept] >= SMALLEST_GAIN
        errors += not helps if due else kept is not None
    return errors / repetitions


def main() -> None:
    """Prints a table of the shares for every scenario, number of patients and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    given = parser.parse_args()
    sizes = " / ".join(map(str, PATIENTS))
    print(f"| wrong in % of {given.repetitions} simulations, of {sizes} patients | {' | '.join(RULES)} |\n|---|{'---|' * len(RULES)}")
    for scenario, (due, _) in SCENARIOS.items():
        cells = []
        for rule in RULES.values():
            shares = [wrong(rule, scenario, n, repetitions=given.repetitions) for n in PATIENTS]
            cells.append(" / ".join(f"{100 * share:.0f}" for share in shares))
        print(f"| {scenario}: {'missed' if due else 'kept'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
