"""The commands as a newcomer meets them: help that answers at once, arguments in human units, mistakes explained in a line."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import story_data as data

from autoseg import cli
from autoseg.cli import options as cli_options

COMMANDS = (
    "plan_and_preprocess",
    "check",
    "train",
    "find_best_configuration",
    "predict",
    "evaluate",
    "run",
    "merge",
    "networks",
    "demo",
    "train_ensemble",
    "report",
    "overlay",
)

Fails = Callable[..., str]

HELP = """
import io, contextlib, sys
from autoseg import cli
for name in sys.argv[1:]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            getattr(cli, name)(["--help"])
        except SystemExit as end:
            assert end.code == 0, name
    assert f"usage: autoseg_{name}" in text.getvalue(), name
    assert "examples:" in text.getvalue(), name
heavy = {"torch", "SimpleITK", "scipy", "skimage", "matplotlib", "blosc2", "acvl_utils", "batchgenerators"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_of_every_command_answers_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", HELP, *COMMANDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_is_installed() -> None:
    setup = (Path(cli.__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in setup for name in COMMANDS)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("1d", 86400), (" 5M ", 300)]
)
def test_durations(text: str, seconds: float) -> None:
    assert cli_options.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "2 h 5", "-3m", "1h30", "soon"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="20m") as caught:
        cli_options.duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(("text", "size"), [("8GB", 8), ("8", 8), ("8g", 8), ("12 gb", 12), ("6000MB", 6), ("500m", 0.5), ("0.2GB", 0.2)])
def test_memory_sizes(text: str, size: float) -> None:
    assert cli_options.gigabytes(text) == pytest.approx(size)


@pytest.mark.parametrize("text", ["", "much", "-8GB", "0", "8TB", "GB"])
def test_what_is_no_memory_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="8GB"):
        cli_options.gigabytes(text)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with one planned dataset, 2d only, and an unplanned one."""
    home = tmp_path_factory.mktemp("commands")
    data.make_volumes(home / "raw" / "Dataset003_Tiny", n_test=1)
    data.make_volumes(home / "raw" / "Dataset004_Other", n_test=0)
    arguments = ["-d", "3", "-c", "2d", "--memory", "0.2GB", "--workers", "0", "--home", str(home)]
    assert cli.plan_and_preprocess(arguments) == 0
    return home


@pytest.fixture
def fails(planned: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Calls a command that must fail: exit code 2, one line on stderr, which is returned."""

    def call(name: str, *arguments: str) -> str:
        assert getattr(cli, name)([*arguments, "--home", str(planned)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        line = lines[-1]
        assert line.startswith(f"autoseg_{name}: error: ")
        assert not any("Traceback" in other for other in lines)
        return line

    return call


def test_unknown_dataset_names_those_there(fails: Fails) -> None:
    for name, arguments in {"train": ("9", "2d", "0"), "check": ("-d", "9"), "plan_and_preprocess": ("-d", "Tinny"), "run": ("9",)}.items():
        line = fails(name, *arguments)
        assert "Dataset003_Tiny" in line
        assert "Dataset004_Other" in line


def test_unknown_configuration_names_the_planned_ones(fails: Fails) -> None:
    line = fails("train", "3", "3d_fulres", "0")
    assert "2d, 3d_fullres" in line
    assert "Did you mean '3d_fullres'" in line
    assert "3d_fullres" in fails("plan_and_preprocess", "-d", "3", "-c", "4d")


def test_unknown_fold_names_the_folds(fails: Fails) -> None:
    assert "expected 0 to 1 or all, got '7'" in fails("train", "3", "2d", "7")


def test_unknown_trainer_names_the_trainers(fails: Fails, planned: Path) -> None:
    assert "Trainer" in fails("train", "3", "2d", "0", "-tr", "Trianer")
    assert not list(planned.glob("results/*/*Trianer*")), "nothing is begun under a wrong name"


def test_unknown_preset_names_the_presets(fails: Fails) -> None:
    assert "resenc_l" in fails("plan_and_preprocess", "-d", "3", "--preset", "large")


def test_unknown_device_names_the_devices(fails: Fails) -> None:
    assert "auto, cpu, cuda" in fails("train", "3", "2d", "0", "--device", "gpu")


def test_two_budgets_are_one_too_many(fails: Fails) -> None:
    line = fails("train", "3", "2d", "0", "--time", "20m", "--epochs", "5", "--device", "cpu")
    assert "--epochs" in line
    assert "--time" in line
    assert "positive" in fails("train", "3", "2d", "0", "--iterations", "-5", "--device", "cpu")


def test_missing_step_gives_the_command_that_does_it(fails: Fails) -> None:
    assert "autoseg_plan_and_preprocess -d Dataset004_Other" in fails("train", "4", "2d", "0")
    assert "autoseg_train" in fails("predict", "-i", "in", "-o", "out")
    assert "autoseg_train" in fails("find_best_configuration", "3")


def test_missing_folders_are_named(fails: Fails, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in fails("evaluate", "-r", str(tmp_path / "nowhere"), "-p", str(tmp_path))


def test_without_a_home_folder_the_message_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.train(["3", "2d", "0"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "raw/" in line
    assert "--home" in line


def test_home_is_found_upwards(planned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(planned / "raw" / "Dataset003_Tiny" / "imagesTr")
    assert cli.check(["-d", "3", "--workers", "0"]) == 0
    assert "no problem found" in capsys.readouterr().out


def test_problems_of_a_dataset_are_listed_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data.make_volumes(tmp_path / "raw" / "Dataset003_Tiny", n_test=0)
    data.write_description(folder, labels={"background": 0, "ball": data.BALL})
    arguments = ["-d", "3", "--workers", "0", "--home", str(tmp_path)]
    before = data.snapshot(folder)
    assert cli.check(arguments) == 1
    listed = capsys.readouterr().out
    assert all(f"case_{number}" in listed for number in range(4))
    assert str(data.BAR) in listed
    cli.check([*arguments, "--fix"])
    assert data.snapshot(folder) == before, "repairs go into a copy"


def test_wrong_arguments_are_refused_before_anything_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    for name, arguments, expected in (
        ("train", ["3", "2d", "0", "--time", "soon"], "expected a duration like"),
        ("plan_and_preprocess", ["-d", "3", "--memory", "much"], "expected a memory size like"),
        ("predict", ["-o", "out"], "-i/--input"),
        ("train", ["3"], "configuration"),
    ):
        with pytest.raises(SystemExit) as end:
            getattr(cli, name)(arguments)
        assert end.value.code == 2
        assert expected in capsys.readouterr().err


def test_a_command_in_its_own_process_ends_with_code_2_and_no_traceback(planned: Path) -> None:
    code = "import sys; from autoseg.cli import train; sys.exit(train())"
    arguments = ["Nothing", "2d", "0", "--home", str(planned)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Dataset003_Tiny" in done.stderr


def test_verbose_shows_where_an_error_comes_from(planned: Path) -> None:
    with pytest.raises(ValueError, match="Dataset003_Tiny"):
        cli.train(["9", "2d", "0", "--home", str(planned), "--verbose"])


ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


class Understood(Exception):
    """The arguments are those of the command."""


def written_commands(text: str) -> list[tuple[str, bool]]:
    """Commands in code, and whether they must be whole: lines of blocks; what stands in a sentence may name an option only."""
    block = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    lines = [(line.partition(" #")[0].strip(), True) for found in block.findall(text) for line in found.splitlines()]
    spans = [(" ".join(span.split()), False) for span in re.findall(r"`([^`]+)`", block.sub("", text))]
    return [(line, whole) for line, whole in lines + spans if line.startswith("autoseg_") and " " in line and "..." not in line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_documentation_are_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser, *arguments: object) -> None:
        parse(parser, *arguments)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    for line, whole in written_commands(page.read_text(encoding="utf-8")):
        program, *words = shlex.split(line)
        with pytest.raises((Understood, SystemExit)) as end:
            getattr(cli, program.removeprefix("autoseg_"))(words)
        said = capsys.readouterr().err
        assert end.type is Understood or (not whole and "arguments are required" in said), f"{line}: {said}"


def test_options_in_the_table_of_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.findall(r"^\| `autoseg_([a-z_]+)[^|]*\|.*\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(COMMANDS) - {"train_ensemble"} <= set(rows)
    for row in re.finditer(r"^\| `autoseg_([a-z_]+)[^|]*\|(.*)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE):
        with pytest.raises(SystemExit):
            getattr(cli, row[1])(["--help"])
        known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", capsys.readouterr().out))
        told = set(re.findall(r"(?<=`)--?[a-z][a-z-]*", row[2]))
        assert told <= known, f"autoseg_{row[1]}"
