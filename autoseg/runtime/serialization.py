"""Conversion of values to JSON and back, and atomic writing of files."""

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

from ..schema import candidate_members, candidate_name
from .migrate.names import upgrade, upgrade_objects

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
    """Converts dataclasses, paths, tuples and NumPy scalars to what `json` can write."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {candidate_name(key) if isinstance(key, tuple) else str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value


def write_json(path: Path, value: Any) -> None:
    """Writes a value (dataclasses allowed) as indented JSON, atomically. NaN is written as ``null``.

    Dataclasses with a class variable ``file_format`` get that number as ``format``.
    """
    number = getattr(value, "file_format", None)
    plain = _nan_to_none(to_jsonable(value))
    with atomic_write(path) as partial:
        text = json.dumps(plain if number is None else {"format": number, **plain}, indent=1, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, kind: type[T]) -> T:
    """Reads what `write_json` wrote.

    Raises:
        ValueError: The file is not JSON, or lacks or has surplus fields; the message names it.
    """
    try:
        return from_jsonable(json.loads(path.read_text(encoding="utf-8")), kind)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as {getattr(kind, '__name__', kind)}: {error}") from error


def from_jsonable(data: Any, kind: type[T]) -> T:
    """Rebuilds a value of type `kind` (dataclass, tuple, dict, Path, scalar) from parsed JSON; fields of 0.1.0 get their present names."""
    value: T = _build(upgrade_objects(data), kind)
    return value


def _build(data: Any, kind: Any) -> Any:
    if data is None:
        return float("nan") if kind is float else None
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        present = upgrade(kind.__name__, data, newest=getattr(kind, "file_format", None))
        return kind(**{key: _build(item, hints.get(key, Any)) for key, item in present.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _build(data, str if isinstance(data, str) and str in arguments else arguments[0])
    if origin is tuple:
        inner = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(_build(item, one) for item, one in zip(data, inner, strict=True))
    if origin is dict:
        return {_key(key, arguments[0]): _build(item, arguments[1]) for key, item in data.items()}
    if origin is list:
        return [_build(item, arguments[0]) for item in data]
    return kind(data) if kind in (Path, float) else data


def _key(key: str, kind: Any) -> Any:
    return int(key) if kind is int else candidate_members(key) if typing.get_origin(kind) is tuple else key


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_to_none(item) for item in value]
    return None if isinstance(value, float) and value != value else value
