"""``autoseg_predict --fast`` beside nnU-Net's default on CTs of 512 x 512 x 300: seconds, and Dice beside our own full prediction.

``python benchmarks/fast_prediction.py --nnunet-python ENVIRONMENT/bin/python --out FOLDER`` on a machine that does nothing else.
Phantoms of lower resolution are made, planned and trained for some minutes (``--minutes``); new ones of the full size are predicted by
the command, with all that starts: in full (mirrored copies, the planned steps), by default and with ``--fast``. nnU-Net's time is
**modelled**: with the same network and weights (`autoseg.interop.nnunet`) its preprocessing and its export of the first CT are
measured, and its tiles are its own number of tiles, times its eight mirrored copies, times the median of 20 measured ones. All is kept in
``rows.json``: the same command goes on where it was stopped. Written is ``table.md`` too.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from beside_nnunet import Rows, Values, autoseg_version, machine, nnunet_version
from nnunet_bench import SIDE, Bench, afresh
from nnunet_stages import dice_of_folder

log = logging.getLogger("benchmark")
PHASE = "arterial"
"""Of all CTs: each organ has grey values of its own, and minutes of training are enough to tell them apart, as hours are of real ones."""
QUICKER = ("--learning-rate", "2e-3", "--training-option", "mirror_probability=0")
"""Of the training: all bodies lie alike, so that nothing is learnt from mirrored ones. nnU-Net's default averages eight mirrored copies."""
TILES = 20
"""That are measured of nnU-Net."""
QUICK_STEPS = 30
"""Of training with ``--quick``."""
ENDING = ".nii.gz"
WAYS = {"in full": ("--tta",), "default": (), "fast": ("--fast",)}


def made_training_data(folder: Path, *, cases: int, size: float) -> Path:
    """Phantoms in nnU-Net's layout."""
    from autoseg.data.phantom.dataset import make_phantom

    if not (folder / "dataset.json").is_file():  # is written last
        make_phantom(folder, n_train=cases, n_test=0, seed=0, size=size, phase=PHASE)
    return folder


def make_scan(work: Path, number: int, shape: tuple[int, int, int]) -> None:
    """A new phantom CT of exactly this shape ``(Z, Y, X)``, and its label map; other patients than in training."""
    from autoseg.data.images import write_image, write_label
    from autoseg.data.phantom.dataset import phantom_case
    from autoseg.preprocessing.resampling import resample_image, resample_labels
    from autoseg.schema import Geometry

    size = min(4.0, max(0.15, shape[-1] / 115))
    rng = np.random.default_rng((1, number))
    image, label, geometry = phantom_case(rng, size=size, phase=PHASE)
    spacing = tuple(n * edge / wanted for n, edge, wanted in zip(geometry.shape, geometry.spacing, shape, strict=True))
    finer = Geometry(shape, spacing, geometry.origin, geometry.direction)
    cube = (1.0,) * 3  # mixes all axes alike
    values = resample_image(image[None].astype(np.float32), shape, spacing=cube, new_spacing=cube, order=1)
    values += rng.normal(0, 10, shape).astype(np.float32)  # interpolated noise is not that of thin slices
    write_label(work / "labels" / f"scan_{number}{ENDING}", resample_labels(label, shape), finer)
    write_image(work / "scans" / f"scan_{number}_0000{ENDING}", np.round(values).astype(np.int16), finer)


class Steps:
    """What was measured, in ``rows.json``; a step that is there is not done again."""

    def __init__(self, kept: Rows) -> None:
        self.kept = kept

    def once(self, name: str, work: Callable[[], Values]) -> Values:
        """The values of a step, measured now where they are not kept."""
        if not self.kept.values(name, "once"):
            log.info("%s ...", name)
            self.kept.add(name, "once", work())
            log.info("  %.1f s", self.kept.values(name, "once")[-1]["seconds"])
        return self.kept.values(name, "once")[-1]


def prepared(bench: Bench, steps: Steps, given: argparse.Namespace) -> Path:
    """Trains one fold, and writes the same model for nnU-Net; the folder of ours."""
    from autoseg.interop.nnunet.model_folder import write_model_folder
    from autoseg.runtime.checkpoints import load_checkpoint
    from autoseg.runtime.runs import ModelFolder
    from autoseg.runtime.serialization import read_json
    from autoseg.schema.dataset import Fingerprint

    bench.link_data()
    plan = ["-d", bench.number, "-c", "3d_fullres", "--memory", "0.2GB" if given.quick else given.memory]
    steps.once("planning", lambda: bench.autoseg("planning", "plan_and_preprocess", *plan))
    budget = ("--iterations", str(QUICK_STEPS)) if given.quick else ("--time", f"{given.minutes}m")
    words = (bench.number, "3d_fullres", "0", *budget, *QUICKER, "--validation", "full")
    steps.once("training", lambda: bench.autoseg("training", "train", *words))
    folder = next((bench.home / "results" / bench.data.name).glob("3d_fullres__Trainer*"))
    run = ModelFolder(folder).run("0")
    record, (states, _) = run.record(), load_checkpoint(run.checkpoint)
    fingerprint = read_json(bench.home / "preprocessed" / bench.data.name / "fingerprint.json", Fingerprint)
    write_model_folder(bench.work / "model", record.plan, record.configuration, {"0": states["network"]}, fingerprint)
    return folder


def predicted(bench: Bench, model: Path, number: int, way: str) -> Values:
    """Seconds and memory of one CT from file to file, and its Dice against the phantom and against our full prediction."""
    out, full = bench.work / "out" / way, bench.work / "out" / "in full"
    scan = bench.work / "scans" / f"scan_{number}_0000{ENDING}"
    values = bench.autoseg(f"{way} {number}", "predict", "-i", scan, "-o", out, "-m", model, "--overwrite", *WAYS[way])
    afresh(bench.work / "one").mkdir(parents=True)
    (bench.work / "one" / f"scan_{number}{ENDING}").symlink_to((out / f"scan_{number}{ENDING}").resolve())
    against = {"dice": bench.work / "labels", "dice_with_full": full}
    return {**values, **{name: dice_of_folder(folder, bench.work / "one", ENDING) for name, folder in against.items()}}


def modelled(bench: Bench) -> Values:
    """nnU-Net's measured parts on the first CT, and what they add up to."""
    arguments = {
        "model": str(bench.work / "model"),
        "image": str(bench.work / "scans" / f"scan_0_0000{ENDING}"),
        "out": str(bench.work / "nnunet" / "scan_0"),
        "tiles": 3 if bench.quick else TILES,
    }
    Path(arguments["out"]).parent.mkdir(parents=True, exist_ok=True)
    values = bench.nnunet("modelled", SIDE, "modelled", json.dumps(arguments))
    of_copy, rest = values["tiles"] * median(values["tile_seconds"]), values["preprocessing_seconds"] + values["export_seconds"]
    seconds, others = (rest + values[name] * of_copy for name in ("mirrored_copies", "copies_of_this_model"))
    return {**values, "seconds": seconds, "with_its_copies": others}


def table(kept: Rows, scans: int) -> str:
    """Seconds a CT, how many times faster than nnU-Net, peak memory, and Dice, as Markdown."""
    about = kept.machine
    theirs = kept.values("nnU-Net, modelled", "once")[-1]
    when = "; ".join([about["date"], *(f"{name} {version}" for name, version in about.get("versions", {}).items())])
    lines = [
        f"{about['processor']} ({'with' if about['matrix_tiles'] else 'without'} matrix tiles), {about['cores']} cores; {when}; "
        f"{scans} CT{'s' if scans > 1 else ''} of {about['scan']} voxels, {about['minutes']} of training; seconds a CT, means.\n",
        "| | seconds | nnU-Net takes | peak MB | Dice | Dice, less than in full |\n|---|---:|---:|---:|---:|---:|",
        f"| nnU-Net's default, modelled: {theirs['preprocessing_seconds']:.0f} s preprocessing, {theirs['tiles']} tiles x "
        f"{theirs['mirrored_copies']} copies x {median(theirs['tile_seconds']):.2f} s (median of {len(theirs['tile_seconds'])}), "
        f"{theirs['export_seconds']:.0f} s export | {theirs['seconds']:.0f} | 1 | | | |",
        f"| with the {theirs['copies_of_this_model']} copies of this model, which knows left from right | {theirs['with_its_copies']:.0f} "
        f"| {theirs['seconds'] / theirs['with_its_copies']:.1f} x | | | |",
    ]
    full = [kept.values(f"in full, CT {number}", "once")[-1] for number in range(scans)]
    for way in WAYS:
        some = [kept.values(f"{way}, CT {number}", "once")[-1] for number in range(scans)]
        seconds, dice = mean(one["seconds"] for one in some), mean(one["dice"] for one in some)
        lost = mean(one["dice"] for one in full) - dice
        peak = max(one["peak_mb"] for one in some)
        lines.append(f"| autoseg, {way} | {seconds:.1f} | {theirs['seconds'] / seconds:.1f} x | {peak:.0f} | {dice:.4f} | {lost:+.4f} |")
    return "\n".join(lines) + "\n"


def parsed() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("fast_prediction"), help="folder for data, models, rows.json and table.md")
    parser.add_argument("--nnunet-python", type=Path, required=True, metavar="FILE", help="Python of an environment with nnU-Net v2")
    parser.add_argument("--minutes", type=float, default=8, help="of training (default 8)")
    parser.add_argument("--memory", default="1GB", help="target of the plan: the size of the network's patch (default 1GB)")
    parser.add_argument("--scans", type=int, default=2, help="CTs that are predicted (default 2)")
    parser.add_argument("--quick", action="store_true", help="small sizes, in less than three minutes: does everything run?")
    return parser.parse_args()


def main() -> None:
    """Measures what is missing in ``rows.json``, and writes the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = parsed()
    shape = (38, 64, 64) if given.quick else (300, 512, 512)
    scans, out = 1 if given.quick else given.scans, given.out.resolve()
    minutes = f"{QUICK_STEPS} steps" if given.quick else f"{given.minutes:g} minutes"
    about: dict[str, Any] = {"scan": " x ".join(map(str, reversed(shape))), "minutes": minutes}
    versions = {"nnU-Net": nnunet_version(given.nnunet_python.absolute()), "autoseg": autoseg_version()}
    kept = Rows(out, machine(versions) | about)
    data = made_training_data(out / "data" / "Dataset901_Fast", cases=10 if given.quick else 15, size=0.4 if given.quick else 1.5)
    bench = Bench(out / "work", data, given.nnunet_python.absolute(), given.quick)
    steps = Steps(kept)
    for number in range(scans):
        if not (bench.work / "scans" / f"scan_{number}_0000{ENDING}").is_file():
            make_scan(bench.work, number, shape)
    model = prepared(bench, steps, given)
    steps.once("nnU-Net, modelled", lambda: modelled(bench))
    for number in range(scans):
        for way in WAYS:
            steps.once(f"{way}, CT {number}", lambda number=number, way=way: predicted(bench, model, number, way))
    (out / "table.md").write_text(table(kept, scans))
    log.info("%s", table(kept, scans))


if __name__ == "__main__":
    sys.exit(main())
