"""Looking things up by name, and what a wrong name is answered with."""

from __future__ import annotations

import math

import pytest

from autoseg.runtime.registry import import_object, lookup, unknown_name_error

TABLE = {"plain": 1, "root": "math:sqrt", "text": "no path"}


def test_names_give_their_entry_and_paths_in_the_table_are_imported():
    assert lookup(TABLE, "plain", "number") == 1
    assert lookup(TABLE, "root", "number") is math.sqrt
    assert lookup(TABLE, "text", "number") == "no path"


def test_a_path_works_without_an_entry():
    assert lookup(TABLE, "math:pi", "number") == math.pi
    assert import_object("os.path:join")("a", "b").replace("\\", "/") == "a/b"


def test_an_unknown_name_is_answered_with_the_valid_ones_and_the_nearest():
    with pytest.raises(ValueError, match="network: expected one of plain, root, text, got 'plane'. Did you mean 'plain'?"):
        lookup(TABLE, "plane", "network")
    assert "Did you mean" not in str(unknown_name_error("network", "zzzzzz", TABLE))
    assert "(none)" in str(unknown_name_error("model", "x", []))


@pytest.mark.parametrize("path", ["no_such_module_anywhere:x", "math:no_such_function", ":x", "math:"])
def test_a_path_that_cannot_be_imported_is_refused_by_name(path):
    with pytest.raises(ValueError, match=f"trainer: '{path}' cannot be imported .*expected module:name"):
        lookup(TABLE, path, "trainer")
