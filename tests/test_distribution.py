"""What an index page shows of the project, and what its distributions hold."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from autoseg import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of ``setup``."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(pytest.importorskip("setuptools"), "setup", seen.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return seen


def test_an_index_page_shows_what_a_user_looks_for(metadata: dict[str, Any]) -> None:
    assert metadata["version"] == __version__
    assert metadata["license_expression"] == "Apache-2.0"
    assert {"Intended Audience :: Science/Research", "Typing :: Typed"} <= set(metadata["classifiers"])
    assert all(address.startswith("https://") for address in metadata["project_urls"].values())
    assert {"test", "docs", "notebook"} <= set(metadata["extras_require"])
    assert metadata["keywords"]


def test_the_description_has_no_link_that_leads_nowhere(metadata: dict[str, Any]) -> None:
    targets = re.findall(r"\]\(([^)]*)\)", metadata["long_description"])
    assert targets and all(target.startswith("https://") for target in targets)


def test_files_that_are_no_modules_are_installed_too(metadata: dict[str, Any]) -> None:
    folders = {ROOT / package.replace(".", "/"): patterns for package, patterns in metadata["package_data"].items()}
    installed = {file for folder, patterns in folders.items() for pattern in patterns for file in folder.glob(pattern)}
    others = {file for file in (ROOT / "autoseg").rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert others == installed


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """Files in a source distribution, and in the wheel that is built from it."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(source) as archive:
        in_source = {name.partition("/")[2] for name in archive.getnames()}
    return in_source, set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_the_source_distribution_holds_all_that_is_versioned(distributions: tuple[set[str], set[str]]) -> None:
    """But for the four links to rooms of the package, which are for readers of a checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    assert set(listed.stdout.split()) - distributions[0] == {".gitignore", "planners", "trainers", "inference", "evaluation"}


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone(distributions: tuple[set[str], set[str]]) -> None:
    package = {file.relative_to(ROOT).as_posix() for file in (ROOT / "autoseg").rglob("*") if file.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    inside = {name for name in distributions[1] if ".dist-info/" not in name}
    assert inside == package
    assert any(name.endswith("licenses/LICENSE") for name in distributions[1])
