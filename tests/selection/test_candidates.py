"""The candidates that are compared."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
from selection_factories import scores

from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Candidate, candidate_members
from autoseg.selection.candidates import candidates_for, limit_averages, within_seconds


def test_candidates_are_singles_then_pairs():
    names = [candidate.name for candidate in candidates_for(["2d", "3d", "low"], max_members=2)]
    assert names == ["2d", "3d", "low", "2d + 3d", "2d + low", "3d + low"]
    assert len(candidates_for(["a", "b", "c"])) == 7
    assert candidates_for(["a"], max_members=2) == [Candidate(("a",))]
    assert [c.name for c in candidates_for(["a", "b"], max_members=1)] == ["a", "b"]


def test_only_models_of_the_same_organs_are_averaged():
    organs = {"all": ("liver", "spleen"), "more": ("liver", "spleen"), "one": ("liver",), "two": ("liver",), "other": ("spleen",)}
    found = {candidate.name: candidate.organs for candidate in candidates_for(list(organs), organs=organs)}
    assert found == organs | {"all + more": ("liver", "spleen"), "one + two": ("liver",)}


@pytest.mark.parametrize("members", [("2d__Trainer",), ("2d__Trainer", "3d_fullres__Trainer__block")])
def test_members_are_read_from_the_key_of_a_file(tmp_path: Path, members: tuple[str, ...]):
    assert candidate_members(Candidate(members).name) == members
    write_json(tmp_path / "scores.json", {members: 0.5})
    assert read_json(tmp_path / "scores.json", dict[tuple[str, ...], float]) == {members: 0.5}
    assert read_json(tmp_path / "scores.json", dict) == {" + ".join(members): 0.5}


def test_repeated_models_and_empty_averages_are_refused():
    with pytest.raises(ValueError, match="expected each name once, got a, a"):
        candidates_for(["a", "a"])
    with pytest.raises(ValueError, match="max_members: expected at least 1, got 0"):
        candidates_for(["a"], max_members=0)


def test_candidates_that_take_longer_are_left_out(caplog):
    candidates = [Candidate(("a",)), Candidate(("b",)), Candidate(("c",)), Candidate(("a", "b"))]
    with caplog.at_level(logging.WARNING):
        assert [one.name for one in within_seconds(candidates, {"a": 1.0, "b": 2.0}, 2.5)] == ["a", "b"]
    assert "nobody measured how long they take: c" in caplog.text
    with pytest.raises(ValueError, match="at most 0.5 seconds a case: no model is that quick; measured: a 1, b 2, a \\+ b 3"):
        within_seconds(candidates, {"a": 1.0, "b": 2.0}, 0.5)


def test_of_too_many_averages_those_of_the_best_models_of_an_organ_are_kept(caplog):
    models = ["a", "b", "c", "d"]
    table = {"a": scores(liver=[0.9], spleen=[0.1]), "b": scores(liver=[0.8], spleen=[0.2])}
    table |= {"c": scores(liver=[0.3], spleen=[0.8]), "d": scores(liver=[0.2], spleen=[math.nan])}
    candidates = candidates_for(models)
    assert limit_averages(candidates, table, "dice", 10) == candidates
    with caplog.at_level(logging.INFO):
        names = [one.name for one in limit_averages(candidates, table, "dice", 5)]
    assert names == ["a", "b", "c", "d", "a + b", "a + c", "b + c", "a + b + c"]
    assert "Of 10 averages those 4 are compared that are made of the best 3 models of an organ" in caplog.text
    fewest = [one.name for one in limit_averages(candidates, table, "dice", 1)]
    assert fewest == ["a", "b", "c", "d", "a + b", "b + c"], "the best two of each organ in any case"
