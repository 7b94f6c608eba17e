"""Values to JSON and back, and files that appear whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` if the block succeeds, removes it otherwise.

    The temporary name keeps the ending (writers choose the format by it) and starts with ``.partial-``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def to_jsonable(value: Any) -> Any:
    """Dataclasses, paths, tuples and NumPy scalars as what `json` can write."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value


def write_json(path: Path, value: Any) -> None:
    """Writes a value (dataclasses allowed) as indented JSON, atomically. NaN is written as ``null``."""
    with atomic_write(path) as partial:
        text = json.dumps(_nan_to_none(to_jsonable(value)), indent=1, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, kind: type[T]) -> T:
    """Reads what `write_json` wrote.

    Args:
        path: The file.
        kind: Dataclass (or ``dict``/``list``) to build.

    Raises:
        ValueError: The file is not JSON, or lacks or has surplus fields; the message names it.
    """
    try:
        return from_jsonable(json.loads(path.read_text(encoding="utf-8")), kind)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as {getattr(kind, '__name__', kind)}: {error}") from error


def from_jsonable(data: Any, kind: Any) -> Any:
    """Rebuilds a value of type `kind` (dataclass, tuple, dict, Path, optional, scalar) from parsed JSON."""
    if data is None:
        return float("nan") if kind is float else None
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{key: from_jsonable(item, hints.get(key, Any)) for key, item in data.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return from_jsonable(data, next(a for a in arguments if a is not type(None)))
    if origin is tuple:
        inner = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(from_jsonable(item, one) for item, one in zip(data, inner, strict=True))
    if origin is dict:
        return {_key(key, arguments[0]): from_jsonable(item, arguments[1]) for key, item in data.items()}
    if origin is list:
        return [from_jsonable(item, arguments[0]) for item in data]
    return kind(data) if kind in (Path, float) else data


def _key(key: str, kind: Any) -> Any:
    return int(key) if kind is int else key


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_to_none(item) for item in value]
    return None if isinstance(value, float) and value != value else value
