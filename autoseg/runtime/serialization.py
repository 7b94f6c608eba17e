"""Conversion of values to JSON and back, and atomic writing of files."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import re
import shutil
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from ..schema import candidate_members, candidate_name
from .disk import WriteError, explained_write_errors, put_in_place
from .locks import partial_name
from .made_folders import missing_folders, remove_if_empty
from .migrate.names import upgrade, upgrade_objects
from .sealing import with_digest, without_digest

log = logging.getLogger(__name__)

T = TypeVar("T")

PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number"),
    int: ((int,), "a whole number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "text"),
    Path: ((str,), "a path"),
}
"""Kind of a plain value to the types that JSON gives for it, and the same in words."""

Writer = Callable[[Path], AbstractContextManager[Path]]
"""Gives a temporary path that becomes the file when the block succeeds: `atomic_write`, or `outputs.Outputs.write` for a user's folders."""


@contextmanager
def atomic_write(path: Path, *, size: int = 0) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` if the block succeeds, removes it otherwise.

    The temporary name keeps the ending (writers choose the format by it) and starts with ``.partial-``.

    Args:
        size: Bytes that the file needs at most, where that is known, for the message about a full disk.

    Raises:
        WriteError: The disk is full, read-only or broken.
        ValueError: The system does not let the former file be replaced, as it is open in another program.
    """
    partial, missing = path.with_name(partial_name(path.name)), missing_folders(path.parent)
    try:
        with explained_write_errors(path, partial=partial, size=size):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            put_in_place(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):  # on a disk that is mounted read-only also of a file that is not there
                partial.unlink(missing_ok=True)
        remove_if_empty(missing)


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


def write_json(path: Path, value: Any, *, write: Writer = atomic_write, digest: bool = True) -> None:
    """Writes a value (dataclasses allowed) as indented JSON, atomically. NaN is written as ``null``.

    Dataclasses with a class variable ``file_format`` get that number as ``format``.

    Args:
        digest: Begin with a digest of the content (`sealing`), by which `read_json` knows damage; not for files that a user edits or other
            programs read.
    """
    number = getattr(value, "file_format", None)
    plain = _nan_to_none(to_jsonable(value))
    with write(path) as partial:
        content = plain if number is None else {"format": number, **plain}
        text = json.dumps(with_digest(content) if digest else content, indent=1, ensure_ascii=False, allow_nan=False)
        encoded = f"{text}\n".encode()
        with explained_write_errors(path, partial=partial, size=len(encoded)):
            partial.write_bytes(encoded)


def write_json_if_allowed(path: Path, value: Any) -> None:
    """As `write_json`, for what is only kept to spare work: where this user may not write, as in a shared home, it is not kept."""
    try:
        write_json(path, value)
    except WriteError as error:
        if not error.is_denied:
            raise
        log.debug("%s: not kept, as this user may not write there", path)


def read_json(path: Path, kind: type[T], *, verify: bool = True) -> T:
    """Reads what `write_json` wrote; without `verify` also what was edited since.

    Raises:
        ValueError: The file is not JSON, or lacks or has surplus fields; the message names it.
    """
    try:
        return from_jsonable(without_digest(json.loads(path.read_text(encoding="utf-8")), verify=verify), kind)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: damaged, or from another version of autoseg: expected {_in_words(kind)}, {_reason(error)}; put a copy of it back, "
            "or move it away and run again the command that writes it"
        ) from error


def _in_words(kind: Any) -> str:
    """What a file should hold, in words: ``a run record``, ``a list``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", getattr(kind, "__name__", str(kind))).lower()
    return {"dict": "named values"}.get(words, f"{'an' if words[0] in 'aeiou' else 'a'} {words}")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"found no JSON from line {error.lineno}, column {error.colno} on"
    if isinstance(error, UnicodeDecodeError):
        return "found bytes that are no text"
    return f"found this: {error}" if isinstance(error, ValueError) else "found values of another kind"


def from_jsonable(data: Any, kind: type[T]) -> T:
    """Rebuilds a value of type `kind` (dataclass, tuple, dict, Path, scalar) from parsed JSON; fields of 0.1.0 get their present names."""
    value: T = _build(upgrade_objects(data), kind)
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields; finding them takes longer than reading a file."""
    return typing.get_type_hints(kind)


def _build(data: Any, kind: Any) -> Any:
    if data is None:
        return float("nan") if kind is float else None
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        if not isinstance(data, dict):
            raise ValueError(f"expected the fields of {_in_words(kind)}, got {_shown(data)}")
        present = upgrade(kind.__name__, data, newest=getattr(kind, "file_format", None))
        _check_fields(kind, present)
        return kind(**{key: _field(key, item, hints.get(key, Any)) for key, item in present.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _build(data, str if isinstance(data, str) and str in arguments else arguments[0])
    plain = origin or kind
    if plain in (tuple, list) and not isinstance(data, list) or plain is dict and not isinstance(data, dict):
        raise ValueError(f"expected {'named values' if plain is dict else 'a list'}, got {_shown(data)}")
    if origin is tuple:
        if arguments[-1] is not Ellipsis and len(data) != len(arguments):
            raise ValueError(f"expected {len(arguments)} values, got {_shown(data)}")
        inner = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(_build(item, one) for item, one in zip(data, inner, strict=True))
    if origin is dict:
        return {_key(key, arguments[0]): _build(item, arguments[1]) for key, item in data.items()}
    if origin is list:
        return [_build(item, arguments[0]) for item in data]
    if kind in PLAIN:
        accepted, words = PLAIN[kind]
        if not isinstance(data, accepted) or isinstance(data, bool) and kind is not bool:
            raise ValueError(f"expected {words}, got {_shown(data)}")
    return kind(data) if kind in (Path, float) else data


def _field(name: str, data: Any, kind: Any) -> Any:
    try:
        return _build(data, kind)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _check_fields(kind: Any, present: dict[str, Any]) -> None:
    """Raises ValueError where the fields of a dataclass are lacking or surplus."""
    known = {item.name: item for item in dataclasses.fields(kind) if item.init}
    required = [name for name, item in known.items() if item.default is item.default_factory is dataclasses.MISSING]
    lacking, surplus = [name for name in required if name not in present], [name for name in present if name not in known]
    if lacking or surplus:
        wrong = [f"without {', '.join(lacking)}"] * bool(lacking) + [f"with the unknown {', '.join(surplus)}"] * bool(surplus)
        raise ValueError(f"{_in_words(kind)} {' and '.join(wrong)}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _key(key: str, kind: Any) -> Any:
    if kind is int and not key.lstrip("-").isdecimal():
        raise ValueError(f"expected a whole number, got {_shown(key)}")
    return int(key) if kind is int else candidate_members(key) if typing.get_origin(kind) is tuple else key


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_to_none(item) for item in value]
    return None if isinstance(value, float) and value != value else value
