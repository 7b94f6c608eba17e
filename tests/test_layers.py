"""Who may import whom. The table in CONTRIBUTING.md, kept by reading every import of the package."""

from __future__ import annotations

import ast
import importlib
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "autoseg").rglob("*.py"))
ROOMS = (
    "schema",
    "runtime",
    "data",
    "preprocessing",
    "networks",
    "planners",
    "inference",
    "evaluation",
    "trainers",
    "selection",
    "ensembling",
    "report",
    "presets",
    "study",
    "interop",
    "pipeline",
    "cli",
)
"""In the order of CONTRIBUTING.md: a room imports only itself and rooms that stand before it."""
TOP = ("autoseg", "autoseg.__main__")
LINKS = ("planners", "trainers", "inference", "evaluation")
"""Rooms with a link of the same name at the top of the checkout, for readers."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def room_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def imported(module: str) -> set[str]:
    """Modules of the package that `module` imports anywhere in its text, under their full names."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(above + ([node.module] if node.module else []))
            inner = {f"{base}.{name.name}" for name in node.names}
            found |= {name if name in MODULES else base for name in inner}
    return {name for name in found if name.split(".")[0] in ("autoseg", *LINKS)}


def test_every_room_is_named():
    there = {path.name for path in (ROOT / "autoseg").iterdir() if (path / "__init__.py").is_file()}
    assert there == set(ROOMS)
    assert {module for module in MODULES if not room_of(module) or room_of(module) not in ROOMS} <= set(TOP)


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(TOP)))
def test_imports_go_upwards(module):
    room = room_of(module)
    allowed = ROOMS[: ROOMS.index(room) + 1]
    for target in imported(module):
        assert target.split(".")[0] == "autoseg", f"{module} imports {target} by its short name; write autoseg.{target}"
        assert target != "autoseg" or room == "cli", f"{module} imports the package itself"
        assert target == "autoseg" or room_of(target) in allowed, f"{module} ({room}) imports {target}, a room below it"
        if room == "networks":
            assert room_of(target) == "networks" or target == "autoseg.runtime.registry", f"{module} imports {target}"


def test_no_circle_between_files():
    circle: list[str] = []
    try:
        list(TopologicalSorter({module: imported(module) - {module} for module in MODULES}).static_order())
    except CycleError as error:
        circle = error.args[1]
    assert not circle, f"files import each other in a circle: {' -> '.join(circle)}"


def test_only_the_command_line_prints():
    for module in {name for name in MODULES if room_of(name) != "cli"}:
        calls = [node for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], f"{module} prints"


@pytest.mark.parametrize("room", LINKS)
def test_rooms_refuse_their_short_name(room, monkeypatch):
    if not (ROOT / room).is_dir():
        pytest.skip(f"{room} is no folder here: this checkout has no symbolic links")
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delitem(sys.modules, room, raising=False)
    with pytest.raises(ImportError, match=f"import autoseg.{room}, not {room}"):
        importlib.import_module(room)
    assert importlib.import_module(f"autoseg.{room}").__name__ == f"autoseg.{room}"
