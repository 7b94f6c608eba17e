"""Commands, options and links in the documentation exist."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle_home import HomeFactory

import autoseg
from autoseg import cli
from autoseg.cli.reference import reference
from autoseg.cli.tree import COMMANDS, main_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPTIONS = {command.name: set(command.parser()._option_string_actions) for command in COMMANDS}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def written_commands(text: str) -> Iterator[tuple[str, bool]]:
    """Commands in code, and whether they must be whole: lines of blocks; what stands in a sentence may name an option only."""
    lines = [(line.partition(" #")[0].strip(), True) for block in BLOCK.findall(text) for line in block.splitlines()]
    spans = [(" ".join(span.split()), False) for span in re.findall(r"`([^`]+)`", BLOCK.sub("", text))]
    for line, whole in lines + spans:
        line = re.split(r" \\?\|", line.removeprefix("python -m "))[0]
        if re.match(r"autoseg(_\w+)? ", line) and "..." not in line:
            yield line, whole


def parse(line: str) -> argparse.Namespace:
    program, *words = shlex.split(line)
    parser = main_parser() if program == "autoseg" else getattr(cli, program.removeprefix("autoseg_")).parser()
    return parser.parse_args(words)


@every_page
def test_commands_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line, whole in written_commands(page.read_text(encoding="utf-8")):
        with contextlib.suppress(SystemExit):
            parse(line)
        message = capsys.readouterr().err
        assert not message or (not whole and "arguments are required" in message), f"{line}: {message}"


@every_page
def test_options_exist(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    known = set().union(*OPTIONS.values(), main_parser()._option_string_actions)
    assert set(re.findall(r"(?<=`)--?[a-z][a-z-]*", text)) <= known
    for name, row in re.findall(r"^\| `autoseg_([a-z_]+)[^|]*\|(.*)\|$", text, re.MULTILINE):
        assert set(re.findall(r"(?<=`)--?[a-z][a-z-]*", row)) <= OPTIONS[name], f"autoseg_{name}"


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        other = (page.parent / target).resolve() if target else page
        assert other.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", other.read_text(encoding="utf-8")), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{target}#{anchor}"


@every_page
def test_files_and_names_of_the_package_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file in re.findall(r"(?:(?<=`)|(?<=pytest ))([\w/]+/\w+\.py)\b", text):
        if file == "autoseg/networks/dropout_unet.py":  # which the reader of CONTRIBUTING is to write
            continue
        assert any((ROOT / room / file).is_file() for room in ("", "autoseg")), file
    for module, name in re.findall(r"`((?:[a-z_]+\.)*[a-z_]+)\.(?!json|png|csv|html|npz|log|pt|py\b)(\w+)", BLOCK.sub("", text)):
        room = ROOT / "autoseg" / module.split(".")[0]
        file = ROOT / "autoseg" / f"{module.replace('.', '/')}.py"
        if room.is_dir() and not file.with_suffix("").is_dir():
            assert file.is_file() and re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")), f"{module}.{name}"


def test_readme_is_short_and_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 12_000
    assert {command.name for command in COMMANDS} <= set(re.findall(r"^\| `autoseg_([a-z_]+)", text, re.MULTILINE))


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert all(f"({page})" in index for page in pages if page != "README.md")


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_command_reference_is_current() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == reference(), "write it anew: python -m autoseg.cli.reference > docs/commands.md"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_tests_that_are_named_are_there(page: Path) -> None:
    for file, names in re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)", page.read_text(encoding="utf-8")):
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in names.split("::"):
            assert re.search(rf"^\s*(def|class) {name}\b", source, re.MULTILINE), f"{file}::{names}"


def test_the_python_interface_is_documented() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert {name for name in autoseg.__all__ if name != "__version__"} <= set(re.findall(r"^::: autoseg\.(\w+)$", page, re.MULTILINE))
    source = (ROOT / "autoseg" / "__init__.py").read_text(encoding="utf-8")
    for_editors = source.partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    assert set(re.findall(r"^        (\w+),$", for_editors, re.MULTILINE)) == set(autoseg._FUNCTIONS)


def test_every_file_that_is_written_is_explained(shared_oracle_home: HomeFactory) -> None:
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "autoseg").rglob("*.py"))
    literals = set(re.findall(r'"([A-Za-z_]+\.(?:json|csv|png|html|pt|npz|b2nd|lock))"', sources))
    assert literals <= set(re.findall(r"[\w.]+", page))
    spans = [span.rpartition("/")[2] for span in re.findall(r"`([^`\n]+)`", page)]
    known = [re.compile(re.sub("CASE|NAME", ".+", re.escape(span).replace("\\.\\.\\.", ".+"))) for span in spans if span]
    home = shared_oracle_home()
    written = [file for part in ("preprocessed", "results") for file in (home / part).rglob("*") if file.is_file()]
    assert len(written) > 20
    assert not [str(file) for file in written if not any(one.fullmatch(file.name) for one in known)]
