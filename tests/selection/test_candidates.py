"""The candidates that are compared."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
from factories import scores

from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Candidate, candidate_members
from autoseg.selection.candidates import candidates_for, limit_averages, within_seconds


def names_of(candidates: list[Candidate]) -> list[str]:
    return [candidate.name for candidate in candidates]


def test_candidates_are_singles_then_averages_of_models_with_the_same_organs():
    assert names_of(candidates_for(["2d", "3d", "low"], max_members=2)) == ["2d", "3d", "low", "2d + 3d", "2d + low", "3d + low"]
    assert len(candidates_for(["a", "b", "c"])) == 7
    assert candidates_for(["a"], max_members=2) == [Candidate(("a",))]
    assert names_of(candidates_for(["a", "b"], max_members=1)) == ["a", "b"]
    organs = {"all": ("liver", "spleen"), "more": ("liver", "spleen"), "one": ("liver",), "two": ("liver",), "other": ("spleen",)}
    found = {candidate.name: candidate.organs for candidate in candidates_for(list(organs), organs=organs)}
    assert found == organs | {"all + more": ("liver", "spleen"), "one + two": ("liver",)}


@pytest.mark.parametrize("members", [("2d__Trainer",), ("2d__Trainer", "3d_fullres__Trainer__block")])
def test_members_are_read_from_the_key_of_a_file(tmp_path: Path, members: tuple[str, ...]):
    assert candidate_members(Candidate(members).name) == members
    write_json(tmp_path / "scores.json", {members: 0.5})
    assert read_json(tmp_path / "scores.json", dict[tuple[str, ...], float]) == {members: 0.5}
    assert read_json(tmp_path / "scores.json", dict) == {" + ".join(members): 0.5}


@pytest.mark.parametrize(("models", "most", "message"), [("aa", 3, "expected each name once, got a, a"), ("a", 0, "at least 1, got 0")])
def test_repeated_models_and_empty_averages_are_refused(models, most, message):
    with pytest.raises(ValueError, match=message):
        candidates_for(models, max_members=most)


def test_candidates_that_take_longer_are_left_out(caplog):
    candidates = [Candidate(("a",)), Candidate(("b",)), Candidate(("c",)), Candidate(("a", "b"))]
    assert names_of(within_seconds(candidates, {"a": 1.0, "b": 2.0}, 2.5)) == ["a", "b"]
    assert "nobody measured how long they take: c" in caplog.text
    with pytest.raises(ValueError, match="at most 0.5 seconds a case: .* measured: a 1, b 2, a \\+ b 3"):
        within_seconds(candidates, {"a": 1.0, "b": 2.0}, 0.5)


def test_of_too_many_averages_those_of_the_best_models_of_an_organ_are_kept(caplog):
    table = {"a": scores(liver=[0.9], spleen=[0.1]), "b": scores(liver=[0.8], spleen=[0.2])}
    table |= {"c": scores(liver=[0.3], spleen=[0.8]), "d": scores(liver=[0.2], spleen=[math.nan])}
    candidates = candidates_for(list(table))
    assert limit_averages(candidates, table, "dice", 10) == candidates
    with caplog.at_level(logging.INFO):
        assert names_of(limit_averages(candidates, table, "dice", 5)) == [*table, "a + b", "a + c", "b + c", "a + b + c"]
    assert "Of 10 averages those 4 are compared that are made of the best 3 models of an organ" in caplog.text
    fewest = names_of(limit_averages(candidates, table, "dice", 1))
    assert fewest == [*table, "a + b", "b + c"], "the best two of each organ in any case"
