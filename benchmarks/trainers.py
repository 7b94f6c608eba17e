"""Every trainer and the main networks on the same fold for the same time: whole-volume Dice, steps, parameters, time and memory.

    python benchmarks/trainers.py --home HOME -d 4 --time 120 [--only 2d 3d_fullres+CascadeTrainer ...] [--jobs 2 --threads 1]

The dataset must be planned and preprocessed. Each entry is the command that a user would type; it is trained into a temporary home that
shares the raw and preprocessed data. Memory is the sum over the processes of the command, sampled twice a second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from autoseg.evaluation.folders import mean_dice, summary
from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.serialization import read_json
from autoseg.schema import Score

ENTRIES: dict[str, tuple[str, ...]] = {
    "2d": ("2d",),
    "2d conze_unet": ("2d", "--network", "conze_unet"),
    "2d vgg16_unet": ("2d", "--network", "vgg16_unet"),
    "2d vgg19_unetpp": ("2d", "--network", "vgg19_unetpp"),
    "2d vgg16_unet_cascade": ("2d", "--network", "vgg16_unet_cascade"),
    "2d AdversarialTrainer vgg16_unet_cascade": ("2d", "-tr", "AdversarialTrainer", "--network", "vgg16_unet_cascade"),
    "2d AdversarialTrainer": ("2d", "-tr", "AdversarialTrainer"),
    "2.5d PyramidTrainer": ("2.5d", "-tr", "PyramidTrainer"),
    "2d dense_unet": ("2d", "--network", "dense_unet"),
    "2d se_resunet": ("2d", "--network", "se_resunet"),
    "2d deeplabv3": ("2d", "--network", "deeplabv3"),
    "3d": ("3d_fullres",),
    "3d CascadeTrainer": ("3d_fullres", "-tr", "CascadeTrainer"),
    "3d SpatialConfigurationTrainer": ("3d_fullres", "-tr", "SpatialConfigurationTrainer"),
    "3d AdversarialTrainer": ("3d_fullres", "-tr", "AdversarialTrainer"),
    "3d roth_unet": ("3d_fullres", "--network", "roth_unet"),
    "3d vnet": ("3d_fullres", "--network", "vnet"),
    "3d dense_vnet": ("3d_fullres", "--network", "dense_vnet"),
    "3d deepmedic": ("3d_fullres", "--network", "deepmedic"),
    "3d se_resunet": ("3d_fullres", "--network", "se_resunet"),
}


@dataclass(frozen=True)
class Outcome:
    """What one entry came to."""

    dice: dict[str, float]
    mean: float
    steps: int
    parameters: int
    seconds: float
    peak_gib: float


def memory_of(pid: int) -> int:
    """Resident bytes of a process and all its descendants (Linux)."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for thread in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
    return total


def run_entry(entry: tuple[str, ...], options: argparse.Namespace, home: Path) -> Outcome:
    """Trains and validates fold 0 with the command of an entry."""
    for name in ("raw", "nnUNet_raw"):
        if (options.home / name).is_dir():
            (home / name).symlink_to((options.home / name).resolve())
    shutil.copytree(options.home / "preprocessed", home / "preprocessed", symlinks=True)
    configuration, *rest = entry
    command = ["autoseg_train", options.dataset, configuration, "0", "--time", f"{options.time}s", "--home", str(home), *rest]
    environment = os.environ | ({"OMP_NUM_THREADS": str(options.threads)} if options.threads else {})
    started, peak = time.monotonic(), 0
    with (options.logs / f"{'_'.join(entry)}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(0.5)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}; see {log.name}")
    run = next(home.glob(f"results/*/{configuration}__*/fold_0"))
    return read_outcome(run, time.monotonic() - started, peak)


def read_outcome(run: Path, seconds: float, peak: int) -> Outcome:
    """Scores, steps and size of a finished run."""
    states, meta = load_checkpoint(run / "checkpoint_final.pt")
    parameters = sum(tensor.numel() for tensor in states["network"].values())
    scores = read_json(run / "validation" / "scores.json", list[Score])
    dice = {organ: one.dice for organ, one in summary(scores).items()}
    return Outcome(dice, mean_dice(scores), meta["iteration"], parameters, seconds, peak / 2**30)


def main() -> None:
    """Prints a table row as each entry is finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("-d", "--dataset", default="4")
    parser.add_argument("--time", type=int, default=120, help="seconds of training each")
    parser.add_argument("--only", nargs="+", default=list(ENTRIES), choices=list(ENTRIES), metavar="ENTRY")
    parser.add_argument("--jobs", type=int, default=1, help="entries at once")
    parser.add_argument("--threads", type=int, help="OMP threads of each")
    parser.add_argument("--logs", type=Path, default=Path("trainer_logs"))
    options = parser.parse_args()
    options.logs.mkdir(parents=True, exist_ok=True)
    print(
        "| entry | mean Dice | per organ | steps | numbers in the network | seconds in all | peak GiB |\n|---|---:|---|---:|---:|---:|---:|"
    )

    def one(name: str) -> None:
        """Prints the row of an entry."""
        with tempfile.TemporaryDirectory(dir=options.home) as folder:
            try:
                found = run_entry(ENTRIES[name], options, Path(folder))
            except (RuntimeError, StopIteration) as error:
                print(f"| {name} | failed: {error} |", flush=True)
                return
        organs = json.dumps({organ: round(value, 4) for organ, value in found.dice.items()})[1:-1].replace('"', "")
        cells = f"{found.mean:.4f} | {organs} | {found.steps} | {found.parameters:,} | {found.seconds:.0f} | {found.peak_gib:.2f}"
        print(f"| {name} | {cells} |", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, options.only))


if __name__ == "__main__":
    main()
