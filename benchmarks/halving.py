"""How often successive halving loses the candidate that would have been the best, and how much time it saves: simulated nights.

    python -m benchmarks.halving [--nights 1000]

Candidates have errors ``floor + (1 - floor) * (1 + t / slow) ** -pace``, drawn anew each night; patients differ by 0.06 in Dice, half of it
common to all candidates; a training of the same length comes out 0.005 better or worse by luck. Compared are: who is clearly behind leaves
(`autoseg.study.halving`), the plain rule (the better half by mean stays), and the same without regard to pace.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.study.halving import TrialScores, leaving

RUNGS = (0.25, 0.5)
FINAL = 3600.0
NEAR = 0.01
"""A loss of Dice up to this is none worth the name."""

Rule = Callable[[Mapping[str, Sequence[TrialScores]], float], Mapping[str, object]]


@dataclass(frozen=True)
class Candidate:
    """A learning curve."""

    floor: float
    slow: float
    pace: float

    def dice(self, seconds: float) -> float:
        """True mean Dice after a training of so many seconds."""
        return 1 - (self.floor + (1 - self.floor) * (1 + seconds / self.slow) ** -self.pace)


def better_half(trials: Mapping[str, Sequence[TrialScores]], final_seconds: float) -> dict[str, str]:
    """Successive halving as published: the worse half by mean leaves."""
    order = sorted(trials, key=lambda name: -_mean(trials[name][-1]))
    return dict.fromkeys(order[(len(order) + 1) // 2 :], "") if len(order) > 1 else {}


def behind_now(trials: Mapping[str, Sequence[TrialScores]], final_seconds: float) -> dict[str, str]:
    """Who is clearly behind at the moment of the trial, whatever its pace."""
    return leaving({name: [found[-1]] for name, found in trials.items()}, trials[next(iter(trials))][-1].seconds)


def _mean(scores: TrialScores) -> float:
    return float(1 - scores.errors(sorted(scores.dice)).mean())


def drawn(rng: np.random.Generator, count: int) -> dict[str, Candidate]:
    """Candidates of a night."""
    return {f"c{number}": Candidate(rng.uniform(0.05, 0.2), 10 ** rng.uniform(1.3, 2.5), rng.uniform(0.4, 0.9)) for number in range(count)}


def night(rule: Rule, *, seed: int, count: int = 3, patients: int = 12) -> tuple[float, float]:
    """Dice that was lost against training all candidates to the end, and the share of the trainings' time that was saved."""
    rng = np.random.default_rng(seed)
    candidates = drawn(rng, count)
    common = rng.normal(0, 0.042, patients)
    own = {name: common + rng.normal(0, 0.042, patients) for name in candidates}
    present, trials, spent = dict(candidates), {name: [] for name in candidates}, 0.0
    done = 0.0
    for share in RUNGS:
        for name, one in present.items():
            values = np.clip(one.dice(share * FINAL) + rng.normal(0, 0.005) + own[name], 0, 1)
            scores = {f"p{index}": {"organ": float(value)} for index, value in enumerate(values)}
            trials[name].append(TrialScores(share * FINAL, scores))
        spent += len(present) * (share - done)
        done = share
        gone = rule({name: trials[name] for name in present}, FINAL)
        present = {name: one for name, one in present.items() if name not in gone}
    spent += len(present) * (1 - done)
    best = max(one.dice(FINAL) for one in candidates.values())
    return best - max(one.dice(FINAL) for one in present.values()), 1 - spent / count


def table(nights: int) -> str:
    """A row for each rule and number of candidates."""
    rules = {"clearly behind at the end": leaving, "clearly behind now": behind_now, "better half": better_half}
    lines = ["| rule | candidates | best lost | more than 0.01 lost | mean loss | time saved |", "|---|---|---|---|---|---|"]
    for name, rule in rules.items():
        for count in (2, 3, 5):
            found = np.array([night(rule, seed=seed, count=count) for seed in range(nights)])
            lost, saved = found[:, 0], found[:, 1].mean()
            cells = f"{(lost > 0).mean():.1%} | {(lost > NEAR).mean():.1%} | {lost.mean():.4f} | {saved:.0%}"
            lines.append(f"| {name} | {count} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=1000)
    print(table(parser.parse_args().nights))


if __name__ == "__main__":
    main()
