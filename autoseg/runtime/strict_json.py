"""Reader of JSON that a person wrote: what other readers let pass or stumble over (a key twice, NaN, deep nesting) is an error by name."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_DEPTH = 50
"""Objects and lists in each other; no file that is meant has ten."""


def read_strict_json(path: Path) -> Any:
    """Reads a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: It cannot be read, is not UTF-8 or not JSON, has a key twice in one object or a number that is not finite, or is nested
            too deeply; the message names the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite_float)
        if _depth(value) > MAX_DEPTH:
            raise RecursionError
        return value
    except RecursionError:
        raise ValueError(f"{path}: cannot be read as JSON: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: cannot be read as JSON: expected text in UTF-8, found {error}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from error


def shown(value: Any) -> str:
    """A value of a file for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _depth(value: Any) -> int:
    """How many objects and lists lie in each other, counted without recursion."""
    depth, level = 0, [value]
    while level := [item for one in level if isinstance(one, (dict, list)) for item in (one.values() if isinstance(one, dict) else one)]:
        depth += 1
    return depth


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"expected each key once in an object, found {key!r} twice")
        found[key] = value
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"expected a finite number, found {text}")


def _finite_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_constant(text)
