"""Which models are the best at an organ."""

from __future__ import annotations

from types import SimpleNamespace

from autoseg.ensembling.ranking import Ranking


def test_a_model_whose_organ_is_zero_in_all_cases_is_no_second_member() -> None:
    values = {("good", "0", "liver"): [0.8, 0.9], ("fair", "0", "liver"): [0.7, 0.0], ("failed", "0", "liver"): [0.0, 0.0]}
    models = [SimpleNamespace(name=name, labels=SimpleNamespace(names=("liver",))) for name in ("failed", "fair", "good")]
    assert Ranking("dice", values).best(models, ["liver"], ["0"], number=3) == {"liver": ["good", "fair"]}
    assert Ranking("dice", values).best(models[:1], ["liver"], ["0"], number=2) == {"liver": ["failed"]}, "there is no other"
