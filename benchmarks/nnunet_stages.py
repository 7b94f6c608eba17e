"""The stages that are measured beside nnU-Net: the rows of `beside_nnunet`, and what has to be there before each."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from beside_nnunet import NNUNET, OURS, Row, Values, with_peak
from nnunet_bench import HERE, ROOT, SIDE, Bench, afresh

# ---------------------------------------------------------------- fingerprint, plan, preprocessing

CONFIGURATIONS = ("2d", "3d_fullres")


def _nnunet_preprocess(bench: Bench) -> Values:
    afresh(bench.nnunet_folder("preprocessed") / bench.data.name)
    cores = str(bench.cores)
    command = ["-d", bench.number, "-npfp", cores, "-c", *CONFIGURATIONS, "-np", cores, cores]
    return bench.nnunet("preprocessing", "nnUNetv2_plan_and_preprocess", *command)


def _autoseg_preprocess(bench: Bench) -> Values:
    afresh(bench.home / "preprocessed" / bench.data.name)
    command = ["-d", bench.number, "-c", *CONFIGURATIONS, "--workers", str(bench.cores)]
    return bench.autoseg("preprocessing", "plan_and_preprocess", *command)


def preprocessing(bench: Bench) -> Iterator[Row]:
    """Measuring a dataset, planning and preprocessing two configurations, with all cores."""
    tools = {NNUNET: lambda: _nnunet_preprocess(bench), OURS: lambda: _autoseg_preprocess(bench)}
    yield Row("fingerprint, plan, preprocessing", tools, 150, prepare=bench.link_data)


# ---------------------------------------------------------------- training step

STEPS = 5


def step(bench: Bench) -> Iterator[Row]:
    """One step of training with the same network, patch and batch of random numbers; in processes that stay, after a first step."""
    for shape, expected in {"hippocampus-2": 30, "acdc-3d": 60, "acdc-2d": 60}.items():
        yield _step_row(bench, shape, expected)


def _step_row(bench: Bench, shape: str, expected: float) -> Row:
    from training_step import Tool

    started: dict[str, Tool] = {}

    def start(tool: str) -> Tool:
        """The running process of a tool."""
        if tool not in started:
            python, root = (str(bench.python), "") if tool == NNUNET else (sys.executable, str(ROOT))
            served = "nnunet" if tool == NNUNET else "autoseg"
            started[tool] = Tool(python, str(HERE / "training_step.py"), ["--serve", served, "--shape", shape], root=root)
        return started[tool]

    def once(tool: str) -> Values:
        running = start(tool)
        return with_peak(running.process.pid, running.step, 1 if bench.quick else STEPS)

    def close() -> None:
        for tool in started.values():
            tool.close()
        started.clear()

    return Row(f"training step, {shape}", {tool: lambda tool=tool: once(tool) for tool in (NNUNET, OURS)}, expected, close=close)


# ---------------------------------------------------------------- prediction with the same network and weights


def _made_model(bench: Bench, configuration: str) -> None:
    """A model of a few steps, once, and the same for nnU-Net; and the images."""
    from autoseg.interop.nnunet.model_folder import write_model_folder
    from autoseg.runtime.checkpoints import load_checkpoint
    from autoseg.runtime.runs import ModelFolder
    from autoseg.runtime.serialization import read_json
    from autoseg.schema.dataset import Fingerprint

    bench.link_data()
    if not (bench.home / "preprocessed" / bench.data.name / "plan.json").is_file():
        _autoseg_preprocess(bench)
    bench.autoseg("model", "train", bench.number, configuration, "0", "--iterations", "1" if bench.quick else "50", "--trial", "1")
    folder = next((bench.home / "results" / bench.data.name).glob(f"{configuration}__Trainer*"))
    run = ModelFolder(folder).run("0")
    record = run.record()
    fingerprint = read_json(bench.home / "preprocessed" / bench.data.name / "fingerprint.json", Fingerprint)
    states, _ = load_checkpoint(run.checkpoint)
    write_model_folder(bench.work / "models" / configuration, record.plan, record.configuration, {"0": states["network"]}, fingerprint)
    for count in (1, _images(bench)):
        chosen = bench.work / "images" / str(count)
        chosen.mkdir(parents=True, exist_ok=True)
        for path in _cases(bench.data / "imagesTr", count):
            if not (chosen / path.name).exists():
                (chosen / path.name).symlink_to(path.resolve())


def _cases(folder: Path, count: int) -> list[Path]:
    """The files of the first cases."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    names = sorted({path.name.rsplit("_", 1)[0] for path in paths})[:count]
    return [path for path in paths if path.name.rsplit("_", 1)[0] in names]


def _images(bench: Bench) -> int:
    return 2 if bench.quick else 10


def _nnunet_predict(bench: Bench, configuration: str, count: int, mirror: bool) -> Values:
    out = afresh(bench.work / "predicted" / "nnunet")
    command = ["-i", bench.work / "images" / str(count), "-o", out, "-m", bench.work / "models" / configuration, "-f", "0"]
    more = ["-device", "cpu", "-npp", "1", "-nps", "1", *([] if mirror else ["--disable_tta"])]
    return bench.nnunet("predict", "nnUNetv2_predict_from_modelfolder", *command, *more)


def _autoseg_predict(bench: Bench, configuration: str, count: int, mirror: bool) -> Values:
    out = afresh(bench.work / "predicted" / "autoseg")
    model = next((bench.home / "results" / bench.data.name).glob(f"{configuration}__Trainer*"))
    told = '"--tta"' in (ROOT / "autoseg" / "cli" / "prediction.py").read_text()  # where mirroring is not what is done untold
    more = (["--tta"] if told else []) if mirror else ["--no-tta"]
    return bench.autoseg("predict", "predict", "-i", bench.work / "images" / str(count), "-o", out, "-m", model, *more)


def _differing_voxels(bench: Bench) -> Values:
    """Share of the voxels that any of the two tools draws whose label differs, in what both predicted last."""
    from autoseg.data.images import read_label

    different = drawn = 0
    for path in sorted((bench.work / "predicted" / "nnunet").glob(f"*{_ending(bench)}")):
        first, second = (read_label(folder / path.name).array for folder in (path.parent, bench.work / "predicted" / "autoseg"))
        different += int(np.count_nonzero(first != second))
        drawn += int(np.count_nonzero((first > 0) | (second > 0)))
    return {"voxels_that_differ_of_those_drawn": different / max(drawn, 1)}


def _ending(bench: Bench) -> str:
    return json.loads((bench.data / "dataset.json").read_text())["file_ending"]


def prediction(bench: Bench) -> Iterator[Row]:
    """From image files to label files, with all that starts, by the same network with the same weights."""
    for configuration in reversed(CONFIGURATIONS):
        for mirror in (False, True):
            name = f"prediction of {_images(bench)} images, {configuration}, {'mirrored' if mirror else 'not mirrored'}"
            yield _predict_row(bench, name, configuration, _images(bench), mirror)


def _predict_row(bench: Bench, name: str, configuration: str, count: int, mirror: bool) -> Row:
    both: dict[str, Callable[..., Values]] = {NNUNET: _nnunet_predict, OURS: _autoseg_predict}
    tools = {tool: lambda function=function: function(bench, configuration, count, mirror) for tool, function in both.items()}

    def compare() -> Values:
        """How many voxels the label maps of both differ in."""
        if not all(list((bench.work / "predicted" / tool).glob(f"*{_ending(bench)}")) for tool in ("nnunet", "autoseg")):
            _made_model(bench, configuration)
            for function in tools.values():
                function()
        return _differing_voxels(bench)

    return Row(name, tools, 120, prepare=lambda: _made_model(bench, configuration), compare=compare)


# ---------------------------------------------------------------- export of many classes


def export(bench: Bench) -> Iterator[Row]:
    """Logits on half of the file's resolution to a label map, without start: 512 x 512 x 400."""
    file = (100, 128, 128) if bench.quick else (400, 512, 512)
    for organs in (13, 29, 116):
        arguments = {"file": file, "cores": bench.cores, "logits": str(bench.work / "export" / f"{organs}.npy")}
        made = {"organs": organs, "grid": [edge // 2 for edge in file], **arguments}
        ours = {**arguments, "out": str(bench.work / "export" / "autoseg.npy")}
        theirs = {**arguments, "out": str(bench.work / "export" / "nnunet.npy")}
        tools: dict[str, Callable[[], Values]] = {OURS: lambda ours=ours: bench.child("export", "export", ours)}
        if organs < 100:
            tools = {NNUNET: lambda theirs=theirs: bench.nnunet("export", SIDE, "export", json.dumps(theirs))} | tools
        yield Row(
            f"export of {organs + 1} classes to {' x '.join(map(str, reversed(file)))}",
            tools,
            200.0 if organs < 100 else 60.0,
            prepare=lambda made=made: bench.child("logits", "logits", made),
            close=lambda made=made: Path(made["logits"]).unlink(missing_ok=True),
        )


def _child_logits(arguments: dict[str, Any]) -> Values:
    from export import Size, make_logits

    path = Path(arguments["logits"])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, make_logits(Size(arguments["organs"], tuple(arguments["grid"]), tuple(arguments["file"]))))
    return {}


def _child_export(arguments: dict[str, Any]) -> Values:
    import time

    from export import Size, by_export

    logits = np.load(arguments["logits"])
    size = Size(len(logits) - 1, logits.shape[1:], tuple(arguments["file"]))
    started = time.perf_counter()
    found = by_export(logits, size)
    seconds = time.perf_counter() - started
    np.save(arguments["out"], found.astype(np.uint8))
    return {"seconds": seconds}


# ---------------------------------------------------------------- evaluation


def _made_predictions(bench: Bench) -> None:
    """Label maps, and the same a voxel off."""
    from autoseg.data.images import read_label, write_label

    for path in sorted((bench.data / "labelsTr").glob(f"*{_ending(bench)}"))[: 4 if bench.quick else 100]:
        image = read_label(path)
        write_label(bench.work / "evaluation" / "references" / path.name, image.array, image.geometry)
        write_label(bench.work / "evaluation" / "predictions" / path.name, np.roll(image.array, 1, axis=2), image.geometry)


def evaluation(bench: Bench) -> Iterator[Row]:
    """Scores of a folder of label maps, with start; nnU-Net's are Dice and IoU, autoseg's also surface distances."""
    references, predictions = bench.work / "evaluation" / "references", bench.work / "evaluation" / "predictions"
    labels = json.loads((bench.data / "dataset.json").read_text())["labels"].values()
    numbers = [str(value) for value in labels if isinstance(value, int) and value > 0] or ["1"]
    cores = str(bench.cores)

    def theirs() -> Values:
        """Scores the folder by nnU-Net."""
        return bench.nnunet("evaluation", "nnUNetv2_evaluate_simple", references, predictions, "-l", *numbers, "-np", cores)

    def ours() -> Values:
        """Scores the folder by autoseg."""
        return bench.autoseg("evaluation", "evaluate", "-r", references, "-p", predictions, "--workers", cores)

    yield Row("evaluation (autoseg: surfaces, too)", {NNUNET: theirs, OURS: ours}, 40, prepare=lambda: _made_predictions(bench))


# ---------------------------------------------------------------- start


def start(bench: Bench) -> Iterator[Row]:
    """Help of the command that predicts, and one small image."""
    tools = {
        NNUNET: lambda: bench.nnunet("help", "nnUNetv2_predict", "-h"),
        OURS: lambda: bench.autoseg("help", "predict", "-h"),
    }
    yield Row("start: predict -h", tools, 20)
    yield _predict_row(bench, "start: one image, 3d_fullres, not mirrored", "3d_fullres", 1, False)


# ---------------------------------------------------------------- Dice after some minutes


def _accuracy_home(bench: Bench) -> Path:
    return bench.work / "accuracy"


def _prepare_accuracy(bench: Bench) -> None:
    """Both have preprocessed, and the same fold."""
    bench.link_data()
    home = _accuracy_home(bench)
    (home / "raw").mkdir(parents=True, exist_ok=True)
    if not (home / "raw" / bench.data.name).exists():
        (home / "raw" / bench.data.name).symlink_to(bench.data.resolve())
    bench.autoseg("accuracy plan", "plan_and_preprocess", "-d", bench.number, "-c", "3d_fullres", home=home)
    theirs = bench.nnunet_folder("preprocessed") / bench.data.name
    if not (theirs / "nnUNetPlans.json").is_file():
        _nnunet_preprocess(bench)
    shutil.copyfile(home / "preprocessed" / bench.data.name / "splits.json", theirs / "splits_final.json")


def dice_of_folder(references: Path, predictions: Path, ending: str) -> float:
    """Mean Dice over organs of the mean over cases, label by label; an organ in neither map counts for nothing."""
    from autoseg.data.images import read_label

    scores: dict[int, list[float]] = {}
    paths = sorted(predictions.glob(f"*{ending}"))
    if not paths:
        raise ValueError(f"{predictions}: expected predicted label maps (*{ending}), found none")
    for path in paths:
        truth, found = read_label(references / path.name).array, read_label(path).array
        for value in np.union1d(truth, found):
            if value:
                both = np.count_nonzero((truth == value) & (found == value))
                dice = 2 * both / (np.count_nonzero(truth == value) + np.count_nonzero(found == value))
                scores.setdefault(int(value), []).append(float(dice))
    return float(np.mean([np.mean(some) for some in scores.values()])) if scores else 0.0


def accuracy(bench: Bench) -> Iterator[Row]:
    """Mean Dice of the held-out cases of one fold after the same minutes of training; nnU-Net with batch 2, annealed over them."""
    minutes = 1 if bench.quick else 20
    results = bench.nnunet_folder("results")

    def theirs() -> Values:
        """Trains and validates nnU-Net."""
        afresh(results / bench.data.name)
        plans = bench.nnunet_folder("preprocessed") / bench.data.name / "nnUNetPlans.json"
        wanted = {"dataset": bench.data.name, "configuration": "3d_fullres", "seconds": 60 * minutes, "plans": str(plans)}
        told = bench.nnunet("accuracy", SIDE, "train", json.dumps(wanted))
        return scored(told, Path(told.pop("validation")))

    def ours() -> Values:
        """Trains and validates autoseg."""
        home = _accuracy_home(bench)
        afresh(home / "results")
        told = bench.autoseg("accuracy", "train", bench.number, "3d_fullres", "0", "--time", f"{minutes}m", home=home)
        folder = next((home / "results" / bench.data.name).glob("3d_fullres__Trainer*"))
        return scored(told, folder / "fold_0" / "validation")

    def scored(told: Values, folder: Path) -> Values:
        return {**told, "seconds": told["took"], "dice": dice_of_folder(bench.data / "labelsTr", folder, _ending(bench))}

    tools = {NNUNET: theirs, OURS: ours}
    name = f"training for {minutes} minutes with validation"
    yield Row(name, tools, 180.0 * minutes, once=True, prepare=lambda: _prepare_accuracy(bench))


STAGES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    function.__name__: function for function in (start, preprocessing, step, prediction, export, evaluation, accuracy)
}
"""In the order in which they are measured."""


def rows_of(bench: Bench, stages: Sequence[str]) -> list[Row]:
    """The rows of some stages."""
    return [row for stage in stages for row in STAGES[stage](bench)]


def main() -> None:
    """A child: ``nnunet_stages.py WHAT JSON``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("logits", "export"))
    parser.add_argument("arguments", type=json.loads)
    given = parser.parse_args()
    print(json.dumps({"logits": _child_logits, "export": _child_export}[given.what](given.arguments)))


if __name__ == "__main__":
    main()
