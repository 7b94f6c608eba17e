"""How time and peak memory of each stage grow with volume, classes, cases, folds, workers and models: measured, and a line fitted.

Run ``python benchmarks/cost_growth.py --out cost`` on a quiet machine (``--stages`` for some, ``--quick`` for small sizes). One number is
changed at a time, the others stay as in `BASE`. Every point is measured in a process of its own, without its start, and kept in
``rows.json``: the same command goes on where it was stopped. Memory is the peak of the proportional set size of the process and all that
it starts. Written are ``rows.json``, ``cost.md`` (a table of the lines) and ``cost.png``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from process_memory import peak_memory_of_tree

log = logging.getLogger("benchmark")


@dataclass(frozen=True)
class Work:
    """What a stage has to do.

    Attributes:
        volume: Voxels of a case, millions.
        classes: Organs.
        folds: Networks that predict together.
        workers: Processes.
        models: That are chosen among.
    """

    volume: float = 1.0
    classes: int = 4
    cases: int = 8
    folds: int = 1
    workers: int = 1
    models: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(Z, Y, X)`` with Y = X = 1.5 Z."""
        edge = (self.volume * 1e6 / 2.25) ** (1 / 3)
        return round(edge), round(1.5 * edge), round(1.5 * edge)


BASE, QUICK = Work(), Work(volume=0.1, cases=5)
VALUES: dict[str, tuple[float, ...]] = {
    "volume": (0.5, 1.0, 2.0, 4.0, 8.0),
    "classes": (1, 4, 16, 40),
    "cases": (5, 10, 20, 40),
    "folds": (1, 2, 3, 4, 5),
    "workers": (1, 2, 3, 4),
    "models": (2, 3, 5, 8),
}
QUICK_VALUES: dict[str, tuple[float, ...]] = {
    "volume": (0.05, 0.1, 0.2, 0.4),
    "classes": (1, 4, 8, 16),
    "cases": (5, 8, 12, 16),
    "folds": (1, 2, 3, 4),
    "workers": (1, 2, 3, 4),
    "models": (2, 3, 4, 5),
}
TIMES = {"seconds": "seconds", "cpu_seconds": "seconds of the processor"}
"""What is shown of a row."""

Prepared = Callable[[], object]
"""What is measured; a number that it returns are its seconds."""

STEPS = 12
"""Of a training whose step is measured."""


def made_case(work: Work, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image ``(Z, Y, X)`` of organs as ellipsoids, and its label map."""
    rng = np.random.default_rng([number, work.classes])
    axes = [np.linspace(0, 1, n, dtype=np.float32).reshape([-1 if a == i else 1 for a in range(3)]) for i, n in enumerate(work.shape)]
    label = np.zeros(work.shape, np.uint8)
    places = np.random.default_rng(work.classes).uniform(0.15, 0.85, (work.classes, 3))
    for organ, place in enumerate(places, start=1):
        centre, radius = place + rng.normal(0, 0.02, 3), 0.25 / (1 + work.classes) ** (1 / 3)
        label[sum(((axis - c) / radius) ** 2 for axis, c in zip(axes, centre, strict=True)) <= 1] = organ
    image = rng.normal(0, 20, work.shape).astype(np.float32) - 100
    image += 200 * (label > 0) + 20 * label
    return image.astype(np.int16), label


def made_dataset(folder: Path, work: Work) -> Path:
    """Writes a dataset in nnU-Net's layout, once: ``Dataset001_Cost`` below ``raw`` of a home."""
    from autoseg.data.images import write_image, write_label
    from autoseg.schema import Geometry

    raw = folder / "raw" / "Dataset001_Cost"
    if not (raw / "dataset.json").is_file():
        geometry = Geometry(work.shape, (2.0, 1.5, 1.5), (0.0,) * 3, tuple(np.eye(3).ravel()))
        for number in range(work.cases):
            image, label = made_case(work, number)
            write_image(raw / "imagesTr" / f"case_{number:03d}_0000.nii.gz", image[None], geometry)
            write_label(raw / "labelsTr" / f"case_{number:03d}.nii.gz", label, geometry)
        labels = {"background": 0} | {f"organ {one}": one for one in range(1, work.classes + 1)}
        info = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": work.cases, "file_ending": ".nii.gz"}
        (raw / "dataset.json").write_text(json.dumps(info))
    return raw


def planned(folder: Path, work: Work) -> Path:
    """A home with such a dataset, planned and preprocessed for a small 3D network."""
    import autoseg

    made_dataset(folder, work)
    autoseg.plan_and_preprocess(1, autoseg.PlanSettings(configurations=("3d_fullres",), memory_gb=0.5, workers=work.workers), home=folder)
    return folder


def preprocess(folder: Path, work: Work) -> Prepared:
    """Fingerprint, plan and preprocessing of the dataset."""
    made_dataset(folder, work)
    return lambda: planned(folder, work)


def step(folder: Path, work: Work) -> Prepared:
    """One step of training: patch, batch and network are the same for all sizes."""
    import autoseg

    planned(folder, work)
    settings = autoseg.TrainSettings(iterations=STEPS, patch=(32, 48, 48), batch=2, trial=1, device="cpu")

    def train() -> float:
        autoseg.train(1, "3d_fullres", 0, settings, home=folder)
        history = next((folder / "results").glob("*/*/fold_0/history.csv"))
        header, *_, last = history.read_text().splitlines()
        return float(dict(zip(header.split(","), last.split(","), strict=True))["seconds"]) / STEPS

    return train


def predict(folder: Path, work: Work) -> Prepared:
    """Prediction of one new image by the networks of some folds, mirrored, as validation does, and its export."""
    import autoseg

    home = folder.parent / f"predict_{work.classes}"
    small = replace(work, volume=0.1, cases=5)
    planned(home, small)
    for fold in range(work.folds):
        autoseg.train(1, "3d_fullres", fold, autoseg.TrainSettings(iterations=1, device="cpu"), home=home)
    made_dataset(folder, replace(work, cases=1))
    image = folder / "raw" / "Dataset001_Cost" / "imagesTr" / "case_000_0000.nii.gz"
    folds = tuple(map(str, range(work.folds)))
    settings = autoseg.PredictSettings(model="3d_fullres", folds=folds, mirror=True, device="cpu")
    return lambda: autoseg.predict_folder(image, folder / "out", settings, home=home)


def export(folder: Path, work: Work) -> Prepared:
    """Logits on half of the file's resolution to a label map."""
    from autoseg.inference.export import export_labels
    from autoseg.inference.logits import Logits
    from autoseg.schema import Geometry, Labels, Trace

    grid = tuple(n // 2 for n in work.shape)
    geometry = Geometry(work.shape, (1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel()))
    spacing = tuple(n_out / n_in for n_out, n_in in zip(work.shape, grid, strict=True))
    trace = Trace("case", geometry, (0, 1, 2), work.shape, tuple((0, n) for n in work.shape), grid, spacing)
    labels = Labels(tuple(f"organ {i}" for i in range(1, work.classes + 1)), tuple((i,) for i in range(1, work.classes + 1)))
    _, label = made_case(replace(work, volume=work.volume / 8), 0)
    label = label[tuple(slice(0, n) for n in grid)]
    logits = np.random.default_rng(0).normal(0, 0.3, (work.classes + 1, *label.shape)).astype(np.float16)
    np.put_along_axis(logits, label[None].astype(np.intp), np.float16(8), axis=0)
    trace = replace(trace, shape=label.shape)
    return lambda: export_labels([Logits(logits, trace)], labels)


def evaluate(folder: Path, work: Work) -> Prepared:
    """All usual metrics of the cases, of label maps that are a voxel off."""
    import autoseg
    from autoseg.data.images import read_label, write_label

    raw = made_dataset(folder, work)
    for path in sorted((raw / "labelsTr").glob("*.nii.gz")):
        image = read_label(path)
        write_label(folder / "moved" / path.name, np.roll(image.array, 1, axis=2), image.geometry)
    return lambda: autoseg.evaluate_folders(raw / "labelsTr", folder / "moved", workers=work.workers)


def choice(folder: Path, work: Work) -> Prepared:
    """The choice among models and their averages of two and three."""
    from selection import Size, make_home, measure

    grid = tuple(max(8, n // 2) for n in work.shape)
    make_home(folder, Size(work.models, work.cases, min(4, work.cases), work.classes, grid, work.shape))
    return lambda: measure(folder, "dice", 3)


SCALE = {"export": 16, "evaluate": 8, "preprocess": 4}
"""Stage to how many times the voxels of `VALUES` its cases have: what is quick can only be measured on much."""

STAGES: dict[str, tuple[Callable[[Path, Work], Prepared], tuple[str, ...]]] = {
    "preprocess": (preprocess, ("volume", "cases", "classes", "workers")),
    "step": (step, ("volume", "cases", "classes")),
    "predict": (predict, ("volume", "classes", "folds")),
    "export": (export, ("volume", "classes")),
    "evaluate": (evaluate, ("volume", "classes", "cases", "workers")),
    "choice": (choice, ("volume", "classes", "cases", "models")),
}
"""Stage to what prepares it and gives what is measured, and the numbers that are varied. A function may say the seconds itself."""


def measured(stage: str, work: Work, folder: Path) -> dict[str, float]:
    """Seconds by the clock, seconds of the processor and peak memory in MB of one stage; meant for a process of its own."""
    run = STAGES[stage][0](folder, work)
    with peak_memory_of_tree() as peak:
        start, before = time.perf_counter(), sum(os.times()[:4])
        told = run()
        seconds, cpu = time.perf_counter() - start, sum(os.times()[:4]) - before
    return {"seconds": told if isinstance(told, float) else seconds, "cpu_seconds": cpu, "peak_mb": peak.bytes / 1e6}


def fitted(values: Sequence[float], numbers: Sequence[float], variable: str) -> tuple[float, float, float]:
    """The line ``a + b n`` (of workers ``a + b / n``) of least squares: a, b, and the largest distance of a point as a share of it."""
    n = np.asarray(values, float)
    n = 1 / n if variable == "workers" else n
    b, a = np.polyfit(n, numbers, 1) if len(set(values)) > 1 else (0.0, float(np.mean(numbers)))
    expected = a + b * n
    return float(a), float(b), float(np.max(np.abs(np.asarray(numbers) - expected) / np.asarray(numbers)))


def curves(rows: Mapping[str, dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Stage and variable to its points in order."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows.values():
        found.setdefault((row["stage"], row["variable"]), []).append(row)
    return {key: sorted(some, key=lambda row: row["value"]) for key, some in found.items()}


def table(rows: Mapping[str, dict[str, Any]], base: Work, time_key: str) -> str:
    """Every curve with its points and lines, as Markdown; `time_key` is ``seconds`` or ``cpu_seconds``."""
    about = ", ".join(f"{name} {value:g}" for name, value in asdict(base).items())
    lines = [
        f"{platform.machine()}, {_cores()} cores, Python {platform.python_version()}, {datetime.date.today()}. Unless varied: {about}; "
        f"times the volume: {', '.join(f'{stage} {scale}' for stage, scale in SCALE.items())}.\n",
        f"| stage | n | at n = | {TIMES[time_key]} | line | off by | peak MB | line |\n|---|---|---|---|---|---|---|---|",
    ]
    for (stage, variable), some in curves(rows).items():
        values = [row["value"] for row in some]
        cells = [stage, variable, " / ".join(f"{value:g}" for value in values)]
        for key, shown in ((time_key, "{:.3g}"), ("peak_mb", "{:.0f}")):
            numbers = [row[key] for row in some]
            a, b, off = fitted(values, numbers, variable)
            line = f"{a:.3g} {'-' if b < 0 else '+'} {abs(b):.3g} {'/ n' if variable == 'workers' else 'n'}"
            cells += [" / ".join(shown.format(number) for number in numbers), line, *([f"{100 * off:.0f} %"] if key == time_key else [])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(rows: Mapping[str, dict[str, Any]], path: Path, time_key: str) -> None:
    """One panel a stage and variable: points of seconds and memory, and their lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = curves(rows)
    columns = 4
    figure, panels = pyplot.subplots(-(-len(found) // columns), columns, figsize=(14, 2.8 * -(-len(found) // columns)), squeeze=False)
    for panel in panels.flat[len(found) :]:
        panel.axis("off")
    for panel, ((stage, variable), some) in zip(panels.flat, found.items(), strict=False):
        values = [row["value"] for row in some]
        dense = np.linspace(min(values), max(values), 50)
        for axes, key, colour in ((panel, time_key, "tab:blue"), (panel.twinx(), "peak_mb", "tab:orange")):
            numbers = [row[key] for row in some]
            a, b, _ = fitted(values, numbers, variable)
            axes.plot(values, numbers, "o", color=colour)
            axes.plot(dense, a + b * (1 / dense if variable == "workers" else dense), color=colour, linewidth=1)
            axes.set_ylim(0, 1.15 * max(numbers))
            axes.tick_params(axis="y", labelcolor=colour)
        panel.set_title(f"{stage}: {variable}", fontsize=10)
    figure.text(
        0.5,
        0.005,
        f"blue: {TIMES[time_key]}; orange: peak memory in MB (PSS of the process tree); lines: a + b n, of workers a + b / n",
        ha="center",
    )
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _cores() -> int:
    from autoseg.runtime.hardware import cpu_count

    return cpu_count()


def _points(stages: Sequence[str], base: Work, values: Mapping[str, Sequence[float]]) -> list[tuple[str, str, float, Work]]:
    """Stage, variable and value of every point, with its work."""
    found = []
    for stage in stages:
        scale = SCALE.get(stage, 1)
        of_stage = replace(base, volume=scale * base.volume)
        for variable in STAGES[stage][1]:
            kind = type(getattr(base, variable))
            some = [value * (scale if variable == "volume" else 1) for value in values[variable]]
            found += [(stage, variable, value, replace(of_stage, **{variable: kind(value)})) for value in some]
    return found


def _in_process(stage: str, work: Work, folder: Path) -> dict[str, float]:
    """Measures a point in a process of its own; what it made is removed, but for the models that predict."""
    command = [sys.executable, __file__, "--measure", stage, json.dumps(asdict(work)), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        raise ValueError(f"{stage} of {work} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures what is not in ``rows.json`` yet, and writes the table and the plot."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("cost"), help="folder for rows, table and plot")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--quick", action="store_true", help="small sizes, in some ten minutes")
    parser.add_argument("--processor", action="store_true", help="show seconds of the processor: those by the clock need a quiet machine")
    parser.add_argument("--measure", nargs=3, metavar=("STAGE", "WORK", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        stage, work, folder = given.measure
        print(json.dumps(measured(stage, Work(**json.loads(work)), Path(folder))))
        return
    base, values = (QUICK, QUICK_VALUES) if given.quick else (BASE, VALUES)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "rows.json"
    rows: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    points = _points(given.stages, base, values)
    for number, (stage, variable, value, work) in enumerate(points, start=1):
        key, same = (f"{stage} {json.dumps(asdict(work))} {one}" for one in (variable, ""))
        if key not in rows:
            log.info("%d of %d: %s, %s %g", number, len(points), stage, variable, value)
            known = next((row for name, row in rows.items() if name.startswith(same)), None)
            row = known or _in_process(stage, work, given.out / "work" / "now")
            rows[key] = {**row, "stage": stage, "variable": variable, "value": value}
            (partial := path.with_suffix(".partial")).write_text(json.dumps(rows, indent=1))
            partial.replace(path)
    shutil.rmtree(given.out / "work", ignore_errors=True)
    time_key = "cpu_seconds" if given.processor else "seconds"
    (given.out / "cost.md").write_text(table(rows, base, time_key))
    plot(rows, given.out / "cost.png", time_key)
    log.info("%s", table(rows, base, time_key))


if __name__ == "__main__":
    main()
