"""The commands: help that answers at once, arguments in human units, mistakes explained in a line, exit statuses."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import story_data as data

from autoseg import __version__, cli
from autoseg.cli import units
from autoseg.cli.command import Command
from autoseg.cli.tree import COMMANDS
from autoseg.study.local import IS_TASK

ROOT = Path(__file__).parents[2]
Fails = Callable[..., str]

LIGHT = """
import sys
from autoseg import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as end:
    assert not end.code
heavy = {"numpy", "torch", "SimpleITK", "scipy", "skimage", "matplotlib", "blosc2", "acvl_utils", "batchgenerators"} & set(sys.modules)
assert not heavy, heavy
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_needs_no_heavy_library(arguments: list[str]) -> None:
    done = run_python("-c", LIGHT, *arguments)
    assert done.returncode == 0, done.stderr
    assert "autoseg" in done.stdout


def test_prediction_loads_nothing_that_it_does_not_use() -> None:
    code = "import sys; from autoseg.pipeline import PredictSettings, predict_each; print(*sys.modules)"
    loaded = set(run_python("-c", code).stdout.split())
    unused = {"pydicom", "blosc2", "skimage", "scipy.stats", "scipy.optimize", "scipy.spatial", "matplotlib", "batchgenerators"}
    assert "autoseg.pipeline.predicting" in loaded
    assert not loaded & (unused | {f"autoseg.{room}" for room in ("study", "report", "trainers.trainer")})


@pytest.mark.parametrize("module", ["evaluating", "checking", "merging"])
def test_commands_without_networks_do_not_load_torch(module: str) -> None:
    loaded = run_python("-c", f"import sys, autoseg.pipeline.{module}; print(*sys.modules)").stdout.split()
    assert f"autoseg.pipeline.{module}" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_of_every_command(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for call, words, program in ((command, [], f"autoseg_{command.name}"), (cli.main, [command.name], f"autoseg {command.name}")):
        with pytest.raises(SystemExit) as end:
            call([*words, "--help"])
        text = capsys.readouterr().out
        assert end.value.code == 0
        assert text.startswith(f"usage: {program} ")
        assert all(f"\n  {program} {arguments}".rstrip() in text for arguments in command.examples)


def test_every_command_is_installed() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    names = setup.partition("COMMANDS = (")[2].partition(")")[0]
    assert [name.strip(' "\n') for name in names.split(",")][:-1] == [command.name for command in COMMANDS]
    assert all(getattr(cli, command.name) is command for command in COMMANDS)
    assert "autoseg = autoseg.cli:main" in setup


def test_version() -> None:
    done = run_python("-m", "autoseg", "--version")
    assert (done.returncode, done.stdout) == (0, f"autoseg {__version__}\n")


def test_durations_and_memory_sizes() -> None:
    seconds = {"90s": 90, "20m": 1200, "2h": 7200, "1h30m": 5400, "1.5h": 5400, "1d": 86400, " 5M ": 300}
    assert {text: units.duration(text) for text in seconds} == seconds
    sizes = {"8GB": 8, "8": 8, "8g": 8, "12 gb": 12, "6000MB": 6, "500m": 0.5, "0.2GB": 0.2, "4GiB": 4.294967296, "900000 kB": 0.9}
    assert {text: units.gigabytes(text) for text in sizes} == pytest.approx(sizes)


@pytest.mark.parametrize(
    ("convert", "text"),
    [(units.duration, text) for text in ("", "20", "m", "2 h 5", "-3m", "1h30", "soon")]
    + [(units.gigabytes, text) for text in ("", "much", "-8GB", "0", "8TB", "GB")],
)
def test_other_durations_and_sizes_are_refused_with_examples(convert: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        convert(text)
    assert repr(text) in str(caught.value)
    assert {units.duration: "20m", units.gigabytes: "8GB"}[convert] in str(caught.value)


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
    """Calls a command that must fail: exit status 2, one line on stderr, which is returned."""

    def call(line: str) -> str:
        name, *arguments = line.split()
        assert getattr(cli, name)([*arguments, "--home", str(planned)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith(f"autoseg_{name}: error: ")
        assert not any("Traceback" in other for other in lines)
        return lines[-1]

    return call


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("train 9 2d 0", "Dataset003_Tiny Dataset004_Other"),
        ("check -d 9", "Dataset003_Tiny Dataset004_Other"),
        ("plan_and_preprocess -d Tinny", "Dataset003_Tiny Dataset004_Other"),
        ("run 9", "Dataset003_Tiny Dataset004_Other"),
        ("train 3 3d_fulres 0", "2d 3d_fullres"),
        ("plan_and_preprocess -d 3 -c 4d", "2d 3d_fullres"),
        ("train 3 2d 7", "0 1 all '7'"),
        ("train 3 2d 0 -tr Trianer", "Trainer"),
        ("plan_and_preprocess -d 3 --preset large", "resenc_l"),
        ("train 3 2d 0 --device gpu", "auto cpu cuda"),
        ("train 3 2d 0 --time 20m --epochs 5 --device cpu", "--epochs --time"),
        ("train 3 2d 0 --iterations -5 --device cpu", "positive"),
        ("evaluate -r nowhere -p .", "nowhere"),
    ],
)
def test_mistakes_name_what_is_possible(line: str, named: str, fails: Fails, planned: Path) -> None:
    message = fails(line)
    assert all(word in message for word in named.split())
    assert not list(planned.glob("results/*/*Trianer*")), "nothing is started under a wrong name"


def test_missing_step_gives_the_command_that_does_it(fails: Fails) -> None:
    assert "autoseg_plan_and_preprocess -d Dataset004_Other" in fails("train 4 2d 0")
    assert "autoseg_train" in fails("predict -i in -o out")
    assert "autoseg_train" in fails("find_best_configuration 3")


def test_within_a_study_the_plan_proposes_no_command(
    planned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-d", "3", "-c", "2d", "--memory", "0.2GB", "--workers", "0", "--home", str(planned)]
    for is_task in (False, True):
        if is_task:
            monkeypatch.setenv(IS_TASK, "1")
        assert cli.plan_and_preprocess(arguments) == 0
        said = capsys.readouterr().out
        assert "2d" in said and ("Next: autoseg_train Dataset003_Tiny 2d 0" in said) != is_task


def test_home_is_found_upwards(planned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(planned / "raw" / "Dataset003_Tiny" / "imagesTr")
    assert cli.main(["check", "-d", "3", "--workers", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


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


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train 3 2d 0 --time soon", "20m"),
        ("plan_and_preprocess -d 3 --memory much", "8GB"),
        ("predict -o out", "-i/--input"),
        ("train 3", "configuration"),
        ("--print-completion csh", "zsh"),
    ],
)
def test_wrong_arguments_end_with_status_2(line: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(line.split())
    assert end.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("program", [["-c", "import sys; from autoseg.cli import train; sys.exit(train())"], ["-m", "autoseg", "train"]])
def test_a_command_in_its_own_process_ends_with_status_2_and_no_traceback(program: list[str], planned: Path) -> None:
    done = run_python(*program, "Nothing", "2d", "0", "--home", str(planned))
    assert (done.returncode, done.stdout, len(done.stderr.strip().splitlines())) == (2, "", 1)
    assert "Dataset003_Tiny" in done.stderr


def test_an_interruption_ends_with_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autoseg.pipeline.train", interrupted)
    assert cli.train(["3", "2d", "0"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_verbose_shows_where_an_error_comes_from(planned: Path) -> None:
    with pytest.raises(ValueError, match="Dataset003_Tiny"):
        cli.train(["9", "2d", "0", "--home", str(planned), "--verbose"])


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
@pytest.mark.parametrize("arguments", [["--print-completion", "bash"], ["--help"]])
def test_output_that_nobody_reads_to_its_end_ends_quietly(arguments: list[str]) -> None:
    program = [sys.executable, "-c", "import sys; sys.stdin.read(); from autoseg.cli import main; sys.exit(main())", *arguments]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()  # before anything is written
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait() in (0, 141)  # argparse itself passes over the error of its help


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_an_error_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        program = [sys.executable, "-c", "import sys; from autoseg.cli import main; sys.exit(main())", "--print-completion", "bash"]
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_that_end_a_command_do_so_like_ctrl_c(
    name: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = getattr(signal, name, None) or pytest.skip(f"{name} is unknown here")
    before = signal.signal(number, signal.SIG_DFL)  # not ignored, as under nohup
    monkeypatch.setattr("autoseg.pipeline.train", lambda *_, **__: signal.raise_signal(number))
    try:
        assert cli.train(["3", "2d", "0"]) == status
        assert "the same command resumes" in capsys.readouterr().err
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
