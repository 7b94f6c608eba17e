"""Registry: objects by their name in a table or by ``module:attribute``; the error for an unknown name lists the valid ones."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any


def unknown_name_error(kind: str, name: str, valid: Iterable[str]) -> ValueError:
    """Makes the error for a name that is not in a table; its message lists the valid names and suggests the nearest."""
    choices = sorted(valid)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{kind}: expected one of {', '.join(choices) or '(none)'}, got {name!r}.{hint}")


def lookup(table: Mapping[str, Any], name: str, kind: str) -> Any:
    """Returns the entry of `table` called `name`, or the object that ``module:attribute`` points to.

    String entries of the form ``module:attribute`` are imported on demand, so that a table costs nothing to read.

    Args:
        table: Name to object or to ``module:attribute``.
        name: A key of the table, or ``module:attribute``.
        kind: Of the entries, for the message ("network", "trainer" ...).

    Raises:
        ValueError: Neither in the table nor importable.
    """
    if name in table:
        entry = table[name]
        return import_object(entry, kind) if isinstance(entry, str) and ":" in entry else entry
    if ":" in name:
        return import_object(name, kind)
    raise unknown_name_error(kind, name, table)


def import_object(path: str, kind: str = "object") -> Any:
    """Imports ``package.module:attribute``.

    Raises:
        ValueError: The module cannot be imported or has no such attribute.
    """
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{kind}: {path!r} cannot be imported ({error}); expected module:name") from error
