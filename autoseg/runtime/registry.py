"""Registry: objects by their name in a table or by ``module:attribute``; the error for an unknown name lists the valid ones.

This is the only place that imports what a name says. Names also come from folders that somebody else made (a plan, a ``run.json``), and an
import runs code: one that is in none of the project's tables is imported only where the user typed it or allowed its module. The permission
belongs to the call of a pipeline function (`allows_code`), and is handed on to the processes that the call starts.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_ALLOWED: ContextVar[frozenset[str]] = ContextVar("modules that the present call may import", default=frozenset())


class CodeNotAllowedError(ValueError):
    """A file names code that the user neither typed nor allowed."""


class NetworkError(ValueError):
    """A network cannot be built as a file, or a user, describes it."""


@contextmanager
def allowed_code(modules: Iterable[str] = (), *, typed: Iterable[str | None] = ()) -> Iterator[None]:
    """Allows, within the block, the import of names in these modules, and in those of the names that a user `typed`.

    Raises:
        ValueError: A module is not written like one.
    """
    modules = tuple(modules)
    for module in modules:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module):
            raise ValueError(f"--allow-code: expected the name of a module, like my_networks, got {module!r}")
    named = {name.partition(":")[0] for name in typed if name and ":" in name}
    token = _ALLOWED.set(_ALLOWED.get() | named | set(modules))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def allowed_modules() -> tuple[str, ...]:
    """The modules that the present call may import, to be handed on to another process."""
    return tuple(sorted(_ALLOWED.get()))


def allows_code(*typed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function that users call: what its arguments allow holds while it runs.

    They are an argument ``allow_code`` (modules), arguments with an attribute ``allowed_modules`` (settings, or several of them), and the
    names in the arguments called `typed`.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        """Returns `function` with the allowance around each call."""
        signature = inspect.signature(function)

        @functools.wraps(function)
        def allowed(*args: P.args, **kwargs: P.kwargs) -> R:
            """Calls `function` while the modules that its arguments name may be imported."""
            given = signature.bind(*args, **kwargs).arguments
            flat = [one for value in given.values() for one in (value if isinstance(value, (list, tuple)) else (value,))]
            modules = [*given.get("allow_code", ()), *(module for one in flat for module in getattr(one, "allowed_modules", ()))]
            names = [name for argument in typed for name in _texts(given.get(argument))]
            with allowed_code(modules, typed=names):
                return function(*args, **kwargs)

        return allowed

    return decorate


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [one for one in value or () if isinstance(one, str)]


@contextmanager
def named_in(path: Path) -> Iterator[None]:
    """Puts the file that names and options come from before the message about code that is not allowed, or a network that is refused."""
    try:
        yield
    except (CodeNotAllowedError, NetworkError) as error:
        raise type(error)(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def unknown_name_error(kind: str, name: str, valid: Iterable[str]) -> ValueError:
    """Makes the error for a name that is not in a table; its message lists the valid names and suggests the nearest."""
    choices = sorted(valid)
    same = [choice for choice in choices if choice.casefold() == name.casefold()]
    near = same or difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
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
        CodeNotAllowedError: It would import code that is neither in the table nor allowed.
        ValueError: Neither in the table nor importable.
    """
    if name in table:
        entry = table[name]
        return import_object(entry, kind) if isinstance(entry, str) and ":" in entry else entry
    if ":" not in name:
        raise unknown_name_error(kind, name, table)
    module = name.partition(":")[0]
    if module not in _ALLOWED.get() and name not in map(_path_of, table.values()):
        raise CodeNotAllowedError(
            f"{kind}: expected a name of this program, found {name!r}, which runs code of the module {module!r}. "
            f"If you trust that code, allow it: --allow-code {module} (in Python: allow_code=[{module!r}])"
        )
    return import_object(name, kind)


def _path_of(entry: Any) -> str:
    """Where an entry of a table comes from, as ``module:attribute``: under that name, too, it belongs to the project."""
    if isinstance(entry, str):
        return entry
    path = getattr(entry, "factory", getattr(entry, "function", None))
    return path if isinstance(path, str) else f"{getattr(entry, '__module__', '')}:{getattr(entry, '__qualname__', '')}"


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
