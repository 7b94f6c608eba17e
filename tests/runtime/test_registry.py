"""Looking things up by name, and what a wrong name is answered with."""

from __future__ import annotations

import math

import pytest

from autoseg.runtime.registry import (
    CodeNotAllowedError,
    allowed_code,
    allowed_modules,
    allows_code,
    import_object,
    lookup,
    named_in,
    unknown_name_error,
)
from autoseg.runtime.worker_pool import run_cases
from autoseg.schema.settings import PlanSettings, TrainSettings

TABLE = {"plain": 1, "root": "math:sqrt", "text": "no path"}


def test_names_give_their_entry_and_paths_in_the_table_are_imported():
    assert lookup(TABLE, "plain", "number") == 1
    assert lookup(TABLE, "root", "number") is math.sqrt
    assert lookup(TABLE, "text", "number") == "no path"


def test_an_allowed_path_works_without_an_entry():
    with allowed_code(["math"]):
        assert lookup(TABLE, "math:pi", "number") == math.pi
    assert import_object("os.path:join")("a", "b").replace("\\", "/") == "a/b"


def test_an_unknown_name_is_answered_with_the_valid_ones_and_the_nearest():
    with pytest.raises(ValueError, match="network: expected one of plain, root, text, got 'plane'. Did you mean 'plain'?"):
        lookup(TABLE, "plane", "network")
    assert "Did you mean" not in str(unknown_name_error("network", "zzzzzz", TABLE))
    assert "Did you mean 'plain'?" in str(unknown_name_error("network", "PLAIN", TABLE))
    assert "(none)" in str(unknown_name_error("model", "x", []))


@pytest.mark.parametrize("path", ["no_such_module_anywhere:x", "math:no_such_function", ":x", "math:"])
def test_a_path_that_cannot_be_imported_is_refused_by_name(path):
    with allowed_code(typed=[path]), pytest.raises(ValueError, match=f"trainer: '{path}' cannot be imported .*expected module:name"):
        lookup(TABLE, path, "trainer")


def test_a_path_in_no_table_is_imported_only_where_it_was_typed_or_allowed(tmp_path, monkeypatch):
    (tmp_path / "sneaky.py").write_text("raise SystemExit('code of a stranger ran')")
    monkeypatch.syspath_prepend(tmp_path)
    expected = r"run.json: network: .*'sneaky:Net', which runs code of the module 'sneaky'.*--allow-code sneaky .*allow_code="
    with pytest.raises(CodeNotAllowedError, match=expected), named_in(tmp_path / "run.json"):
        lookup(TABLE, "sneaky:Net", "network")
    for allowed in (["sneak"], ["sneaky.more"], ["math"]):
        with allowed_code(allowed), pytest.raises(CodeNotAllowedError):
            lookup(TABLE, "sneaky:Net", "network")
    for path in ("os:path.join", "math:sqrt.__self__"):
        with allowed_code(["os", "math"]), pytest.raises(ValueError, match="cannot be imported"):
            lookup(TABLE, path, "network")
    with pytest.raises(ValueError, match="--allow-code: expected the name of a module"), allowed_code(["sneaky:Net"]):
        pass
    assert lookup(TABLE, "math:sqrt", "number") is math.sqrt, "the table names it"


def test_what_a_user_allows_holds_for_the_call_alone_and_in_its_workers():
    @allows_code("metric")
    def stage(settings, *, metric="dice", allow_code=()):
        inside, failures = run_cases(allowed_modules, {"a": ()}, workers=1)
        return allowed_modules(), tuple(inside["a"]), failures

    settings = TrainSettings(
        network="nets:Net", trainer="trainers:One", allow_code=("more",), normalization=("clip:-1:1",), options={"loss": "losses:focal"}
    )
    with allowed_code():
        mine = set(allowed_modules())
        here, there, failures = stage(settings, metric="metrics:mine", allow_code=["last"])
        assert set(here) - mine == {"nets", "trainers", "more", "losses", "metrics", "last"}
        assert here == there and not failures
        assert set(stage([PlanSettings(preset="presets:one"), None])[0]) - mine == {"presets"}
        assert set(allowed_modules()) == mine
