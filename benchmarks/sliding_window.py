"""What do the logits of a volume cost, and the same of nnU-Net: one network, one patch, its default tiles, with mirroring and without?

Each tool computes in a process and an environment of its own and as it does on this machine: nnU-Net by its
``nnUNetPredictor.predict_sliding_window_return_logits``, autoseg by its `Predictor`; networks as in `training_step`, of random weights. The
volumes alternate; the medians and the ratio are written as JSON.

    python benchmarks/sliding_window.py --nnunet-python ENVIRONMENT/bin/python --shape hippocampus-2 --volume 60 80 60 --mirror
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from training_step import SHAPES, Tool, autoseg_trainer, compare, nnunet_network, serve_steps


def nnunet_volume(shape: dict[str, Any], volume: list[int], mirror: bool) -> Any:
    """A function that computes the logits of a volume as nnU-Net does on a processor, and returns their mean."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    dim = len(shape["patch"])
    device = torch.device("cpu")
    predictor = nnUNetPredictor(use_mirroring=mirror, perform_everything_on_device=False, device=device, allow_tqdm=False)
    predictor.network = nnunet_network(shape)
    predictor.network.decoder.deep_supervision = False
    predictor.configuration_manager = SimpleNamespace(patch_size=shape["patch"])
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=shape["classes"])
    predictor.allowed_mirroring_axes = tuple(range(dim)) if mirror else None
    image = torch.randn(1, *volume)
    return lambda: float(predictor.predict_sliding_window_return_logits(image).float().mean())


def autoseg_volume(shape: dict[str, Any], volume: list[int], mirror: bool) -> Any:
    """The same of autoseg."""
    import numpy as np

    from autoseg.inference.predictor import Predictor
    from autoseg.inference.volume_predictor import Volume

    trainer = autoseg_trainer(shape)
    configuration, labels = trainer.job.configuration, trainer.job.plan.labels
    predictor = Predictor([trainer.network.eval()], configuration, labels, device=trainer.device, mirror=mirror)
    image = Volume(np.random.default_rng(0).normal(size=(1, *volume)).astype(np.float32))
    return lambda: float(predictor.logits(image).float().mean())


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="hippocampus-2")
    parser.add_argument("--volume", type=int, nargs=3, default=[60, 80, 60])
    parser.add_argument("--mirror", action="store_true")
    parser.add_argument("--nnunet-python", help="the Python of an environment in which nnunetv2 is installed; none: autoseg alone")
    parser.add_argument("--other", metavar="FOLDER", help="a checkout of another version of autoseg to measure as well")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", choices=("nnunet", "autoseg"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        make = nnunet_volume if given.serve == "nnunet" else autoseg_volume
        serve_steps(lambda: make(SHAPES[given.shape], given.volume, given.mirror))
        return
    options = ["--shape", given.shape, "--volume", *map(str, given.volume), *(["--mirror"] if given.mirror else [])]
    tools = {"nnunet": Tool(given.nnunet_python, __file__, ["--serve", "nnunet", *options])} if given.nnunet_python else {}
    for name, root in {"other": given.other, "autoseg": str(Path(__file__).parents[1])}.items():
        if root:
            tools[name] = Tool(sys.executable, __file__, ["--serve", "autoseg", *options], root=root)
    result = {"shape": given.shape, "volume": given.volume, "mirror": given.mirror, **compare(tools, given.pairs)}
    for tool in tools.values():
        tool.close()
    if given.out:
        given.out.write_text(json.dumps(result, indent=1))
    sys.stdout.write(json.dumps({key: value for key, value in result.items() if key != "seconds"}) + "\n")


if __name__ == "__main__":
    main()
