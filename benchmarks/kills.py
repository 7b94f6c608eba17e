"""Kills every command at random moments, runs it again, and compares what it leaves with what an undisturbed run leaves.

    python benchmarks/kills.py --work FOLDER --seed 1 --from 0 --to 200 [--stage train_2d ...]

The work folder keeps a tiny phantom, its home before each stage, and what two undisturbed runs of the stage left: what differs between
these two (times, memory) is not compared, everything else must be equal after a kill. Trial number n depends on the seed and n alone. Each
trial adds a line to FOLDER/trials.jsonl, so that counts add up over runs; `--report` prints them. Linux only (children: /proc).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.data.phantom.dataset import make_phantom
from autoseg.preprocessing.storage import read_array
from autoseg.runtime.outputs import NOTES

DATASET = "Dataset900_Phantom"
QUICK = ("--iterations", "24", "--batch", "2", "--device", "cpu", "--seed", "5")
STAGES: dict[str, tuple[str, ...]] = {
    "check_fix": ("check", "-d", "901", "--fix", "-o", "{home}/raw/Dataset902_Fixed", "--workers", "2"),
    "merge": ("merge", "-d", "900", "901", "-o", "903", "--name", "Merged"),
    "plan": ("plan_and_preprocess", "-d", "900", "-c", "2d", "3d_fullres", "--memory", "2GB", "--workers", "2"),
    "train_2d": ("train", "900", "2d", "0", *QUICK),
    "train_2d_1": ("train", "900", "2d", "1", *QUICK),
    "train_3d": ("train", "900", "3d_fullres", "0", *QUICK),
    "train_3d_1": ("train", "900", "3d_fullres", "1", *QUICK),
    "choose": ("find_best_configuration", "900"),
    "ensemble": ("train_ensemble", "900", "--kind", "logits", "--iterations", "12", "--device", "cpu"),
    "predict": ("predict", "-i", "{home}/raw/Dataset900_Phantom/imagesTs", "-o", "{home}/out", "--device", "cpu", "--uncertainty"),
    "evaluate": (
        "evaluate",
        "-r",
        "{home}/raw/Dataset900_Phantom/labelsTs",
        "-p",
        "{home}/out",
        "-d",
        "900",
        "--json",
        "{home}/scores.json",
    ),
    "overlay": ("overlay", "-i", "{home}/raw/Dataset900_Phantom/imagesTs", "-p", "{home}/out", "-o", "{home}/pictures"),
    "report": ("report", "900", "-o", "{home}/report.html"),
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
REFUSED_AGAIN = ("check_fix", "merge")
"""Stages that make a new dataset: one that was killed between its last rename and its end is refused the second time, and finished."""

MARK = "AUTOSEG_KILLS_TRIAL"
IGNORED_ENDINGS = (".png", ".html", ".log", "timings.json")
"""Files that are there or not; their bytes may hold times, and so may what `runtime.outputs` notes of them."""


def command(stage: str, home: Path) -> list[str]:
    """The command line of a stage."""
    return [sys.executable, "-m", "autoseg", *(word.format(home=home) for word in STAGES[stage]), "--home", str(home)]


def contents(home: Path) -> dict[str, str]:
    """Every fact of a home, by name: entries of JSON and CSV files, arrays and tensors, other files."""
    facts = {}
    for file in sorted(path for path in home.rglob("*") if path.is_file()):
        name = file.relative_to(home).as_posix()
        for key, value in _facts_of(file):
            facts[f"{name} {key}".strip()] = value
    return facts


def _facts_of(file: Path) -> Iterator[tuple[str, str]]:
    if file.name.removesuffix(".json" if file.parent.name == NOTES else "").endswith(IGNORED_ENDINGS):
        yield "", "there"
    elif file.suffix == ".json":
        yield from _flat(json.loads(file.read_text(encoding="utf-8")), "")
    elif file.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(file.open(encoding="utf-8"))):
            yield from ((f"{number} {key}", str(value)) for key, value in row.items())
    elif file.suffix == ".b2nd":
        yield "", _digest(np.ascontiguousarray(read_array(file)[:]).tobytes())
    elif file.suffix == ".pt":
        yield from _flat(torch.load(file, weights_only=True, map_location="cpu"), "")
    else:
        yield "", _digest(file.read_bytes())


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}")
    elif isinstance(value, list) and not all(isinstance(item, (int, float)) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{name}[{number}]")
    elif isinstance(value, torch.Tensor):
        yield name, _digest(value.detach().contiguous().numpy().tobytes())
    else:
        yield name, repr(value)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def run(stage: str, home: Path, log: Path) -> tuple[int, float]:
    """Runs a stage to its end; exit status and seconds."""
    started = time.monotonic()
    with log.open("w") as out:
        status = subprocess.run(
            command(stage, home), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False
        ).returncode
    return status, time.monotonic() - started


def prepare(work: Path, wanted: list[str]) -> None:
    """Makes the phantom, and for each stage the home before it and what two undisturbed runs of it leave; what is there stays."""
    home = work / "before" / next(iter(STAGES))
    if not home.exists():
        make_phantom(work / "new" / "raw" / DATASET, n_train=4, n_test=2, seed=3, size=0.25)
        _spoil(shutil.copytree(work / "new" / "raw" / DATASET, work / "new" / "raw" / "Dataset901_Spoilt"))
        home.parent.mkdir(parents=True, exist_ok=True)
        (work / "new").rename(home)
    for stage, following in zip(STAGES, [*list(STAGES)[1:], "end"], strict=True):
        if (work / "before" / following).exists() and (stage not in wanted or (work / f"{stage}.json").exists()):
            continue
        facts, seconds = [], 0.0
        for _ in range(2):
            home = fresh_home(work, stage)
            status, seconds = run(stage, home, work / f"{stage}.log")
            if status not in (0, 1):
                raise SystemExit(f"{stage}: exit status {status} undisturbed; see {work / f'{stage}.log'}")
            facts.append(contents(home))
        same = {key: value for key, value in facts[0].items() if facts[1].get(key) == value}
        names = sorted({*facts[0], *facts[1]})
        (work / f"{stage}.json").write_text(json.dumps({"status": status, "seconds": seconds, "same": same, "names": names}))
        if not (work / "before" / following).exists():
            shutil.copytree(home, work / "before" / following)
        print(f"{stage}: {seconds:.1f} s undisturbed, {len(same)} of {len(names)} facts compared", flush=True)


def _spoil(folder: Path) -> None:
    """One case that `check --fix` has to leave out, and another name for the organs, so that the two can be merged."""
    scan = sorted((folder / "imagesTr").iterdir())[0]
    scan.write_bytes(scan.read_bytes()[:1000])
    info = json.loads((folder / "dataset.json").read_text())
    info.pop("digest", None)
    (folder / "dataset.json").write_text(json.dumps(info))


def fresh_home(work: Path, stage: str) -> Path:
    """A copy of the home before a stage, always at the same path: paths are part of what is written."""
    home = work / "home"
    shutil.rmtree(home, ignore_errors=True)
    return shutil.copytree(work / "before" / stage, home)


def _started(stage: str, home: Path, log: Path, mark: str) -> subprocess.Popen[bytes]:
    with log.open("w") as out:
        return subprocess.Popen(command(stage, home), stdout=out, stderr=subprocess.STDOUT, env={**os.environ, MARK: mark})


def trial(work: Path, seed: int, number: int, stages: list[str]) -> dict[str, Any]:
    """Kills a stage once, runs it again and compares; a stage that ended before its signal is started anew."""
    rng = np.random.default_rng([seed, number])
    stage = stages[number % len(stages)]
    expected = json.loads((work / f"{stage}.json").read_text())
    how, seconds, mark = SIGNALS[rng.integers(len(SIGNALS))], expected["seconds"], f"{os.getpid()}-{number}"
    result = {"seed": seed, "number": number, "stage": stage, "signal": how.name}
    ended = True
    while ended:
        home, delay = fresh_home(work, stage), float(rng.uniform(0.2, 1.02) * seconds)
        process, started = _started(stage, home, work / "trial.log", mark), time.monotonic()
        try:
            process.wait(delay)
            seconds = time.monotonic() - started  # it was faster than the undisturbed run: the signal comes earlier next time
        except subprocess.TimeoutExpired:
            ended = False
    result["after"] = round(delay, 2)
    process.send_signal(how)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        return result | {"outcome": f"{how.name} did not end it within a minute"}
    time.sleep(2)
    children = list(_marked(mark))
    for child in children:
        os.kill(child, signal.SIGKILL)
    if children:
        return result | {"outcome": f"{len(children)} children left"}
    status, _ = run(stage, home, work / "again.log")
    if status != expected["status"] and not (stage in REFUSED_AGAIN and _compare(contents(home), expected) == "same"):
        lines = (work / "again.log").read_text(errors="replace").strip().splitlines()
        return result | {"outcome": f"exit status {status} instead of {expected['status']}: {lines[-1] if lines else ''}"}
    return result | {"outcome": _compare(contents(home), expected)}


def _compare(found: dict[str, str], expected: dict[str, Any]) -> str:
    wrong = [key for key, value in expected["same"].items() if found.get(key) != value]
    surplus = sorted(set(found) - set(expected["names"]))
    if wrong:
        return f"different: {len(wrong)}, for example {wrong[0]}"
    return f"surplus: {len(surplus)}, for example {surplus[0]}" if surplus else "same"


def _marked(mark: str) -> Iterator[int]:
    """Living processes with this trial's mark in their environment."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes() and "(zombie)" not in (folder / "status").read_text():
                    yield int(folder.name)
            except OSError:
                continue


def report(work: Path) -> None:
    """Counts of all trials so far, by stage and outcome."""
    lines = (work / "trials.jsonl").read_text().splitlines() if (work / "trials.jsonl").exists() else []
    trials = {(t["seed"], t["number"]): t for t in map(json.loads, lines)}
    rows = Counter((t["stage"], "same" if t["outcome"] == "same" else "FAULT") for t in trials.values())
    print("| stage | kills | same result afterwards |\n|---|---:|---:|")
    for stage in STAGES:
        same, wrong = rows[stage, "same"], rows[stage, "FAULT"]
        print(f"| {stage} | {same + wrong} | {same} |")
    print(f"| all | {len(trials)} | {sum(t['outcome'] == 'same' for t in trials.values())} |")
    print("\nsignals:", dict(Counter(t["signal"] for t in trials.values())))
    for t in trials.values():
        if t["outcome"] != "same":
            print(json.dumps(t))


def main() -> None:
    """Runs trials, or prints the counts of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", type=int, default=0, dest="start")
    parser.add_argument("--to", type=int, default=200)
    parser.add_argument("--stage", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--report", action="store_true", help="only print the counts")
    options = parser.parse_args()
    options.work = options.work.resolve()
    for number in {*SIGNALS} - {signal.SIGKILL}:  # what a shell lets its background jobs ignore, the commands would ignore, too
        signal.signal(number, signal.default_int_handler)
    if not options.report:
        prepare(options.work, options.stage)
        for number in range(options.start, options.to):
            result = trial(options.work, options.seed, number, options.stage)
            with (options.work / "trials.jsonl").open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)
    report(options.work)


if __name__ == "__main__":
    main()
