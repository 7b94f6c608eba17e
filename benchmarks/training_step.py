"""What does one training step cost, and the same step of nnU-Net: one network, one patch, one batch, random numbers?

Each tool computes in a process and an environment of its own and as it does on this machine: nnU-Net as its ``nnUNetTrainer.train_step``
(float32, its loss with deep supervision, SGD), autoseg as the step of its `Trainer` (its number format, memory layout, loss and options).
The steps alternate, so that a machine whose speed drifts does so for both; the medians and the ratio are written as JSON.

    python benchmarks/training_step.py --nnunet-python ENVIRONMENT/bin/python --shape hippocampus-2 --out step.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import IO, Any, cast


def _grid(dim: int, *strided: list[int], flat: int = 0) -> dict[str, Any]:
    """Strides and kernels of stages: the first without a stride; the first `flat` kernels look at one slice."""
    kernels = [[1, 3, 3] if stage < flat else [3] * dim for stage in range(len(strided) + 1)]
    return {"strides": [[1] * dim, *strided], "kernel_sizes": kernels}


SHAPES: dict[str, dict[str, Any]] = {
    # Hippocampus, 3d_fullres, as nnU-Net plans it.
    "hippocampus-2": {"batch": 2, "patch": [40, 56, 40], "features": [32, 64, 128, 256], "classes": 3, **_grid(3, *[[2, 2, 2]] * 3)},
    "hippocampus-9": {"batch": 9, "patch": [40, 56, 40], "features": [32, 64, 128, 256], "classes": 3, **_grid(3, *[[2, 2, 2]] * 3)},
    # ACDC, thick slices: two stages of kernel 1x3x3; a part of nnU-Net's patch of 20x256x224.
    "acdc-3d": {
        "batch": 2,
        "patch": [12, 128, 128],
        "features": [32, 64, 128, 256, 320],
        "classes": 4,
        **_grid(3, [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], flat=2),
    },
    # ACDC, 2d: nnU-Net's patch, a tenth of its batch.
    "acdc-2d": {"batch": 6, "patch": [256, 224], "features": [32, 64, 128, 256, 512, 512], "classes": 4, **_grid(2, *[[2, 2]] * 5)},
}
"""Networks, patches and batches."""


def nnunet_network(shape: dict[str, Any]) -> Any:
    """nnU-Net's plain network."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    dim, stages = len(shape["patch"]), len(shape["features"])
    conv, norm = (nn.Conv3d, nn.InstanceNorm3d) if dim == 3 else (nn.Conv2d, nn.InstanceNorm2d)
    options = {"norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": nn.LeakyReLU, "nonlin_kwargs": {"inplace": True}}
    counts = {"n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1)}
    torch.manual_seed(0)
    return PlainConvUNet(
        *(1, stages, shape["features"], conv, shape["kernel_sizes"], shape["strides"]),
        num_classes=shape["classes"],
        conv_bias=True,
        norm_op=norm,
        deep_supervision=True,
        **counts,
        **options,
    )


def nnunet_step(shape: dict[str, Any]) -> Any:
    """A function that takes one step as nnU-Net does on a processor and returns its loss."""
    import numpy as np
    import torch
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dim, stages, network = len(shape["patch"]), len(shape["features"]), nnunet_network(shape)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    dice = {"batch_dice": dim == 2, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, ignore_label=None, dice_class=MemoryEfficientSoftDiceLoss)
    weights = np.array([*(0.5**i for i in range(stages - 2)), 0.0])
    loss = DeepSupervisionWrapper(loss, weights / weights.sum())
    image = torch.randn(shape["batch"], 1, *shape["patch"])
    sizes = [shape["patch"]]
    for stride in shape["strides"][1:-1]:
        sizes.append([edge // step for edge, step in zip(sizes[-1], stride)])
    target = [torch.randint(0, shape["classes"], (shape["batch"], 1, *size)).float() for size in sizes]

    def step() -> float:
        """Trains on the batch once; the loss."""
        optimizer.zero_grad(set_to_none=True)
        value = loss(network(image), target)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        return float(value.detach())

    return step


def autoseg_trainer(shape: dict[str, Any]) -> Any:
    """autoseg's `Trainer` with the same network."""
    import tempfile

    import torch

    from autoseg.schema import Budget, Configuration, Intensity, Labels, Mirroring, Plan, Split
    from autoseg.schema.run_record import RunRecord
    from autoseg.schema.settings import TrainSettings
    from autoseg.schema.training_options import TrainingOptions
    from autoseg.trainers.run_options import RunFolders
    from autoseg.trainers.trainer import Trainer

    dim, stages, classes = len(shape["patch"]), len(shape["features"]), shape["classes"]
    network = {key: shape[key] for key in ("features", "strides", "kernel_sizes")}
    configuration = Configuration(
        name="2d" if dim == 2 else "3d_fullres",
        dim=dim,
        spacing=(1.0,) * dim,
        median_shape=tuple(shape["patch"]),
        patch_size=tuple(shape["patch"]),
        batch_size=shape["batch"],
        normalization=("zscore",),
        mask_normalization=(False,),
        network="plain_unet",
        network_options={**network, "convs_per_stage": [2] * stages, "decoder_convs": [2] * (stages - 1)},
        batch_dice=dim == 2,
        mirroring=Mirroring(axes=tuple(range(dim))),
        data="steps",
    )
    labels = Labels(tuple(f"organ{i}" for i in range(1, classes)), tuple((i,) for i in range(1, classes)))
    intensity = Intensity(mean=0.0, median=0.0, std=1.0, min=-3.0, max=3.0, percentile_00_5=-2.5, percentile_99_5=2.5)
    plan = Plan("Dataset001_Steps", ("MR",), labels, ".nii.gz", (0, 1, 2), (intensity,), {configuration.name: configuration})
    options, settings = TrainingOptions(), TrainSettings(iterations=1000, seed=0)
    budget = Budget("iterations", 1000, 10)
    job = RunRecord(plan, configuration, fold="0", split=Split(("a",), ("b",)), budget=budget, seed=0, options=options, settings=settings)
    folder = Path(tempfile.mkdtemp())
    return Trainer(job, RunFolders(folder, folder), device=torch.device("cpu"), progress=False)


def autoseg_step(shape: dict[str, Any]) -> Any:
    """A function that takes one step of autoseg's `Trainer` and returns its loss."""
    import torch

    from autoseg.runtime.hardware import memory_format
    from autoseg.trainers.batches import Batch

    trainer = autoseg_trainer(shape)
    trainer.network.train()
    image = torch.randn(shape["batch"], 1, *shape["patch"]).to(memory_format=memory_format(len(shape["patch"])))
    target = torch.randint(0, shape["classes"], (shape["batch"], *shape["patch"]), dtype=torch.int16)
    batch = Batch(image, target, ("random",) * shape["batch"], (None,) * shape["batch"])

    def step() -> float:
        values = trainer.step(batch)
        trainer.iteration += 1
        return float(cast(Any, values["train_loss"]))

    return step


def serve_steps(make: Callable[[], Callable[[], float]]) -> None:
    """A child: makes a function, and calls it for each line it reads; answers with its seconds and what it returned."""
    started = time.perf_counter()
    step = make()
    loss = step()
    sys.stdout.write(json.dumps({"start": time.perf_counter() - started, "loss": loss}) + "\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        started = time.perf_counter()
        loss = step()
        sys.stdout.write(json.dumps({"seconds": time.perf_counter() - started, "loss": loss}) + "\n")
        sys.stdout.flush()


class Tool:
    """A process that takes steps when told to."""

    def __init__(self, python: str, script: str, arguments: list[str], *, root: str = "") -> None:
        environment = {**os.environ, "PYTHONPATH": root} if root else {**os.environ}
        self.process = subprocess.Popen(
            [python, script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.read()

    def read(self) -> dict[str, float]:
        """Its next answer; what the libraries print before is passed over."""
        for line in cast(IO[str], self.process.stdout):
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"the process ended with status {self.process.wait()}")

    def step(self) -> float:
        """Seconds of one step."""
        stdin = cast(IO[str], self.process.stdin)
        stdin.write("\n")
        stdin.flush()
        return self.read()["seconds"]

    def close(self) -> None:
        """Ends it."""
        cast(IO[str], self.process.stdin).close()
        self.process.wait()


def compare(tools: dict[str, Tool], pairs: int) -> dict[str, Any]:
    """Seconds of alternating steps, medians, and the ratio of the first tool's to each other's (median of the ratios of the pairs)."""
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    for _ in range(pairs):
        for name, tool in tools.items():
            seconds[name].append(tool.step())
    first = next(iter(seconds.values()))
    ratios = {name: median(a / b for a, b in zip(first, own, strict=True)) for name, own in seconds.items()}
    return {"median": {name: median(own) for name, own in seconds.items()}, "ratio": ratios, "seconds": seconds}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="hippocampus-2")
    parser.add_argument("--nnunet-python", help="the Python of an environment in which nnunetv2 is installed; none: only autoseg's step")
    parser.add_argument("--other", metavar="FOLDER", help="a checkout of another version of autoseg to measure as well")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", choices=("nnunet", "autoseg"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        make = nnunet_step if given.serve == "nnunet" else autoseg_step
        serve_steps(lambda: make(SHAPES[given.shape]))
        return
    options = ["--shape", given.shape]
    tools = {"nnunet": Tool(given.nnunet_python, __file__, ["--serve", "nnunet", *options])} if given.nnunet_python else {}
    for name, root in {"other": given.other, "autoseg": str(Path(__file__).parents[1])}.items():
        if root:
            tools[name] = Tool(sys.executable, __file__, ["--serve", "autoseg", *options], root=root)
    result = {"shape": given.shape, **compare(tools, given.pairs)}
    for tool in tools.values():
        tool.close()
    if given.out:
        given.out.write_text(json.dumps(result, indent=1))
    sys.stdout.write(json.dumps({key: value for key, value in result.items() if key != "seconds"}) + "\n")


if __name__ == "__main__":
    main()
