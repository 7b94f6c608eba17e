"""Feeds the readers thousands of damaged files, and counts what happens to them by format.

    python benchmarks/mutations.py --work FOLDER --seed 1 --from 0 --to 10000 [--stage dicom dataset.json ...]

Input number n depends on the seed and n alone. Each line of FOLDER/inputs.jsonl is one input, so that counts add up over runs; `--report`
prints them. Inputs are read in a process of their own with a limit of memory and time: a hang, a crash and a traceback are counted, too.

Outcomes: *refused* (an error in one line that names the file), *same* (what was read is unchanged), *as the header says* (the header has
another meaning now, and was read as an independent reader does), *those voxels* (bytes of voxels without a checksum have another value:
nobody can know), *accepted* (of dataset.json: still valid). Everything else is a fault. An independent reader is nibabel for NIfTI
(pip install nibabel), SimpleITK for the others.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from damaged_own_files import damage_own_file, make_home
from mutated_formats import FORMATS

GOOD = ("refused", "same", "as the header says", "those voxels", "accepted")
SECONDS = 60
MEMORY = 3 * 2**30
"""Address space that reading may take beyond what the process has."""

STAGES = (*FORMATS, "dataset.json", "dataset.json bytes", "own files")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one damage: flipped bits, other bytes, a zeroed block, inserted or missing bytes, a cut or something appended."""
    kind = rng.choice(
        ["bit", "byte", "bytes", "zeros", "insert", "delete", "cut", "append"], p=[0.4, 0.15, 0.1, 0.1, 0.05, 0.05, 0.1, 0.05]
    )
    last = len(data) if rng.random() < 0.5 else min(len(data), 400)
    at, length = int(rng.integers(0, last)), int(rng.integers(1, 64))
    changed = bytearray(data)
    if kind == "bit":
        changed[at] ^= 1 << int(rng.integers(8))
    elif kind == "byte":
        changed[at] = int(rng.integers(256))
    elif kind == "bytes":
        changed[at : at + length] = rng.bytes(min(length, len(data) - at))
    elif kind == "zeros":
        changed[at : at + length] = bytes(min(length, len(data) - at))
    elif kind == "insert":
        changed[at:at] = rng.bytes(length)
    elif kind == "delete":
        del changed[at : at + length]
    elif kind == "cut":
        del changed[at:]
    else:
        changed += rng.bytes(length)
    return bytes(changed)


def damage_image(name: str, folder: Path, rng: np.random.Generator) -> str:
    """Writes an image, damages one of its files, and reads it."""
    from autoseg.data.images import read_image

    one = FORMATS[name]
    path = one.write(folder)
    before = read_image([path])
    files = sorted(file for file in (path if path.is_dir() else folder).iterdir() if file.is_file())
    file = files[int(rng.integers(len(files)))]
    data = file.read_bytes()
    changed = mutated(data, rng)
    if changed == data:
        return "same"
    file.write_bytes(changed)
    try:
        after = read_image([path])
    except ValueError as error:
        return (
            "refused"
            if any(name in str(error) for name in (file.name, path.name, f"{path.stem}.json"))
            else f"FAULT: no file is named: {error}"
        )
    except Exception as error:  # every kind is counted
        return f"FAULT: {type(error).__name__}: {error}"
    same_place = after.geometry == before.geometry
    if same_place and after.array.shape == before.array.shape and np.array_equal(after.array, before.array):
        return "same"
    if _only_those_voxels(data, changed, before.array, after.array, same_place=same_place, raw=one.raw):
        return "those voxels"
    if one.unchecked and same_place and after.array.shape == before.array.shape:
        return "those voxels"
    return "as the header says" if _as_independently_read(path, after) else "FAULT: read as something else without a word"


def _only_those_voxels(data: bytes, changed: bytes, before: np.ndarray, after: np.ndarray, *, same_place: bool, raw: bool) -> bool:
    """Whether the bytes that differ are as many voxels as have another value: damage of uncompressed voxels, which nothing can show."""
    if not (raw and same_place and len(data) == len(changed) and before.shape == after.shape):
        return False
    differing = np.flatnonzero(np.frombuffer(data, np.uint8) != np.frombuffer(changed, np.uint8))
    return np.count_nonzero(before != after) <= len(differing) and bool((differing >= len(data) - before.size * 4 - 1000).all())


def _as_independently_read(path: Path, image: Any) -> bool:
    from autoseg.data.geometry import geometry_difference, to_world
    from autoseg.data.sitk_images import from_sitk

    if path.name.endswith((".nii", ".nii.gz")):
        import nibabel

        try:
            other = nibabel.load(path)
            values = np.asarray(other.dataobj, np.float32).T
            corners = np.array([[0, 0, 0], [1, 2, 3]], float)
            ours = to_world(image.geometry, corners) * [-1, -1, 1]
            plain = np.diag([*other.header.get_zooms()[:3], 1.0])  # without a form: the spacing alone, as ITK reads it
            places = [corners @ affine[:3, :3].T + affine[:3, 3] for affine in (other.get_sform(), other.get_qform(), plain)]
            places.append(places[-1] * [-1, -1, 1])
        except Exception:
            return False
        values = np.where(np.isfinite(values), values, 0).reshape(image.array.shape)
        return any(np.allclose(ours, place, atol=1e-3) for place in places) and np.allclose(values, image.array, equal_nan=True)
    try:
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)) if path.is_dir() else str(path)
        other = from_sitk(sitk.ReadImage(files))
    except Exception:
        return False
    array = other.array[:1] if len(image.array) == 1 and (other.array == other.array[:1]).all() else other.array  # a palette of greys
    same_voxels = array.shape == image.array.shape and np.allclose(np.nan_to_num(array.astype(np.float32)), image.array)
    return same_voxels and (not image.geometry.oriented or not geometry_difference(other.geometry, image.geometry))


def write_dataset(folder: Path) -> Path:
    """A dataset of two cases."""
    for case in ("p_1", "p_2"):
        for part, end in (("imagesTr", "_0000"), ("labelsTr", "")):
            (folder / part).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 4, 4), np.uint8)), str(folder / part / f"{case}{end}.nii.gz"))
    info = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "groups": {"p_1": "a", "p_2": "b"},
        "annotated": {"p_1": ["whole"]},
        "windows": {"core": [400, 40]},
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def load_outcome(folder: Path) -> str:
    """What loading a dataset does."""
    from autoseg.data.datasets import load_dataset

    try:
        load_dataset(folder)
    except ValueError as error:
        return "refused" if folder.name in str(error) else f"FAULT: no file is named: {error}"
    except Exception as error:
        return f"FAULT: {type(error).__name__}: {error}"
    return "accepted"


def damage_description(folder: Path, rng: np.random.Generator) -> str:
    """A description with one value of another type, drawn by hypothesis."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    file = write_dataset(folder / "Dataset001_D") / "dataset.json"
    valid = json.loads(file.read_text())
    places = list(_places(valid, ()))
    scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
    values = st.recursive(
        scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3))
    )
    outcomes: list[str] = []

    @seed(int(rng.integers(2**32)))
    @settings(max_examples=3, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(place=st.sampled_from(places), value=values)
    def attempt(place: tuple[Any, ...], value: Any) -> None:
        """One value of the description replaced by another."""
        changed = json.loads(json.dumps(valid))
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        file.write_text(json.dumps(changed))
        outcomes.append(load_outcome(file.parent))

    attempt()
    return next((outcome for outcome in outcomes if outcome.startswith("FAULT")), outcomes[-1])


def _places(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*place, key)
        yield from _places(item, (*place, key))


def damage_description_bytes(folder: Path, rng: np.random.Generator) -> str:
    """A description with damaged bytes."""
    file = write_dataset(folder / "Dataset001_D") / "dataset.json"
    file.write_bytes(mutated(file.read_bytes(), rng))
    return load_outcome(file.parent)


def attempt(work: Path, stage: str, seed: int, number: int) -> str:
    """One input of a stage."""
    rng = np.random.default_rng([seed, number])
    folder = work / "input"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if stage in FORMATS:
        return damage_image(stage, folder, rng)
    if stage == "own files":
        return damage_own_file(work / "home", rng, mutated)
    return damage_description(folder, rng) if stage == "dataset.json" else damage_description_bytes(folder, rng)


def serve(connection: Connection, work: Path) -> None:
    """Reads inputs until the connection ends, with a limit of memory."""
    import logging

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    logging.disable(logging.CRITICAL)
    import autoseg.pipeline  # noqa: F401  # what it takes counts before the limit

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    while True:
        stage, seed, number = connection.recv()
        try:
            outcome = attempt(work, stage, seed, number)
        except BaseException as error:
            outcome = f"FAULT: {type(error).__name__}: {error}"
        connection.send(outcome)


class Reader:
    """A process that reads inputs, started again after a crash or a hang."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, self.work), daemon=True)
        self.process.start()
        other.close()

    def read(self, stage: str, seed: int, number: int) -> str:
        """The outcome of one input."""
        self.connection.send((stage, seed, number))
        try:
            if self.connection.poll(SECONDS):
                return self.connection.recv()
            outcome = f"FAULT: hangs for {SECONDS} s"
        except EOFError:
            self.process.join(5)
            outcome = f"FAULT: crash, exit code {self.process.exitcode}"
        self.process.kill()
        self._start()
        return outcome


def report(work: Path) -> bool:
    """Prints the counts of all inputs so far, and whether there was no fault."""
    lines = (work / "inputs.jsonl").read_text().splitlines()
    inputs = {(one["seed"], one["number"], one["stage"]): one for one in map(json.loads, lines)}
    counts = Counter((one["stage"], one["outcome"] if one["outcome"] in GOOD else "fault") for one in inputs.values())
    print(f"| input | {' | '.join(GOOD)} | fault |\n|---|{'---:|' * (len(GOOD) + 1)}")
    for stage in STAGES:
        print(f"| {stage} | {' | '.join(str(counts[stage, outcome]) for outcome in (*GOOD, 'fault'))} |")
    print(f"| all {len(inputs)} | {' | '.join(str(sum(counts[s, o] for s in STAGES)) for o in (*GOOD, 'fault'))} |")
    faults = [one for one in inputs.values() if one["outcome"] not in GOOD]
    for one in faults[:50]:
        print(json.dumps(one))
    return not faults


def main() -> None:
    """Reads inputs, or prints the counts of those that were read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", type=int, default=0, dest="start")
    parser.add_argument("--to", type=int, default=10_000)
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--report", action="store_true", help="only print the counts")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.report:
        if "own files" in options.stage:
            make_home(options.work / "home")
        reader = Reader(options.work)
        with (options.work / "inputs.jsonl").open("a") as file:
            for number in range(options.start, options.to):
                stage = options.stage[number % len(options.stage)]
                outcome = reader.read(stage, options.seed, number)
                file.write(json.dumps({"seed": options.seed, "number": number, "stage": stage, "outcome": outcome}) + "\n")
        reader.process.kill()
    sys.exit(not report(options.work))


if __name__ == "__main__":
    main()
