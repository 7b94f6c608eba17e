"""Who may import whom. The table in CONTRIBUTING.md, kept by reading every import of the package."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "autoseg").rglob("*.py"))
ROOMS = ("planners", "trainers", "inference", "evaluation")
TOP = ("", "pipeline", "cli", "__main__")
"""Names below ``autoseg`` (the first is the package itself) that may import everything and that nobody else imports."""
ALLOWED = {
    "core": {"core"},
    "planners": {"core", "planners"},
    "inference": {"core", "inference"},
    "evaluation": {"core", "evaluation"},
    "trainers": {"core", "inference", "evaluation", "trainers"},
}
EXCEPTIONS = {("autoseg.selection.choice", "autoseg.inference.merge_labels")}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def layer(module: str) -> str:
    second = (module.split(".") + [""])[1]
    return "top" if second in TOP else second if second in ROOMS else "core"


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
    return {name for name in found if name.split(".")[0] in ("autoseg", *ROOMS)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards(module):
    for target in imported(module):
        assert target.split(".")[0] == "autoseg", f"{module} imports {target} by its short name; write autoseg.{target}"
        if layer(module) != "top" and (module, target) not in EXCEPTIONS:
            assert layer(target) in ALLOWED[layer(module)], f"{module} ({layer(module)}) imports {target} ({layer(target)})"


def test_only_the_command_line_prints():
    for module in {name for name in MODULES if name != "autoseg.cli.cli"}:
        calls = [node for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], f"{module} prints"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_refuse_their_short_name(room, monkeypatch):
    if not (ROOT / room).is_dir():
        pytest.skip(f"{room} is no folder here: this checkout has no symbolic links")
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delitem(sys.modules, room, raising=False)
    with pytest.raises(ImportError, match=f"import autoseg.{room}, not {room}"):
        importlib.import_module(room)
    assert importlib.import_module(f"autoseg.{room}").__name__ == f"autoseg.{room}"
