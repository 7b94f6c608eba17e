"""Names from files that become names of files: of cases, datasets and configurations, checked wherever a value that holds one is made."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PureWindowsPath
from typing import Any

MAX_BYTES = 200
"""Longest name in UTF-8: file systems allow 255, and endings and marks of partial files are added."""

RESERVED = frozenset(["con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))])
"""Names of devices on Windows, whatever their ending."""

UNWANTED = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff")
"""Characters that change the direction of the text after them, so that a name reads as another; and two that XML, so SVG, cannot hold."""


def check_name(name: Any, what: str) -> str:
    """Returns a name that can be the name of a file on every system.

    Args:
        name: From a file, of any type.
        what: What it names, for the message ("case", "dataset" ...).

    Raises:
        ValueError: It is no text, empty, holds path separators or characters that cannot be printed, or means something else than a file.
    """
    reason = _reason(name)
    if reason:
        raise ValueError(f"name of a {what}: expected a plain name such as 'liver_001', found {_shown(name)}, which {reason}; rename it")
    return str(name)


def check_text(name: Any, what: str) -> str:
    """Returns a name that is only shown (of an organ or channel); a ValueError where it is no text, blank, or cannot be printed."""
    if not isinstance(name, str) or not name.strip() or any(map(is_unprintable, name)):
        raise ValueError(f"name of a {what}: expected text that can be printed, found {_shown(name)}")
    return name


def check_ending(ending: Any) -> str:
    """Returns the ending of a file such as ``.nii.gz``; a ValueError where it is none."""
    if not isinstance(ending, str) or re.fullmatch(r"(\.[A-Za-z0-9]+)+", ending) is None:
        raise ValueError(f"ending of files: expected one such as '.nii.gz', found {_shown(ending)}")
    return ending


def check_different(names: Iterable[str], what: str) -> None:
    """Raises a ValueError where two names are the same, or differ only in ways in which some file systems see no difference."""
    seen: dict[str, str] = {}
    for name in names:
        key = same_file_key(name)
        other = seen.get(key)
        seen[key] = name
        if other is not None:
            alike = f"differs from {other!r} in upper and lower case only, and some disks make them one file"
            how = "is there twice" if other == name else alike
            raise ValueError(f"name of a {what}: expected a name of its own for each, found {name!r}, which {how}; rename one")


def same_file_key(name: str) -> str:
    """What is equal for names that are one file on some file systems: upper and lower case, and composed characters, are the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_unprintable(character: str) -> bool:
    """Whether a character steers a terminal, breaks a line, cannot be encoded, or changes the direction of the text after it."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in UNWANTED


def _reason(name: Any) -> str:
    """Why a name cannot be that of a file; empty where it can."""
    if not isinstance(name, str):
        return "is no text"
    reasons = {
        "is empty": not name.strip(),
        "holds a path separator": "/" in name or "\\" in name,
        "holds a character that cannot be printed": any(map(is_unprintable, name)),
        "begins with a dot": name.startswith("."),
        "ends with a dot or a blank, which Windows drops": name.endswith((".", " ")),
        "begins with a blank": name.startswith(" "),
        "is the name of a drive and a file on it": bool(PureWindowsPath(name).drive),
        "is a device on Windows": name.partition(".")[0].strip().lower() in RESERVED,
        f"is longer than {MAX_BYTES} bytes": len(name.encode("utf-8", "replace")) > MAX_BYTES,
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _shown(name: Any) -> str:
    text = repr(name)  # which escapes what cannot be printed
    return text if len(text) <= 80 else f"{text[:77]}..."
