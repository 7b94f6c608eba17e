"""Looking things up by name: a table first, then ``module:attribute``; the error for an unknown name lists the valid ones."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any


def unknown_name_error(what: str, name: str, valid: Iterable[str]) -> ValueError:
    """The error for a name that is not in a table: says what was expected and the nearest valid name."""
    choices = sorted(valid)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{what}: expected one of {', '.join(choices) or '(none)'}, got {name!r}.{hint}")


def lookup(table: Mapping[str, Any], name: str, what: str) -> Any:
    """The entry of `table` called `name`, or the object that ``module:attribute`` points to.

    String entries of the form ``module:attribute`` are imported on demand, so that a table costs nothing to read.

    Args:
        table: Name to object or to ``module:attribute``.
        name: What the user asked for.
        what: What the table lists, for the message ("network", "trainer" ...).

    Raises:
        ValueError: Neither in the table nor importable.
    """
    if name in table:
        entry = table[name]
        return import_object(entry, what) if isinstance(entry, str) and ":" in entry else entry
    if ":" in name:
        return import_object(name, what)
    raise unknown_name_error(what, name, table)


def import_object(path: str, what: str = "object") -> Any:
    """Imports ``package.module:attribute``.

    Raises:
        ValueError: The module cannot be imported or has no such attribute.
    """
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{what}: {path!r} cannot be imported ({error}); expected module:name") from error
