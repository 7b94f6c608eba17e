"""What is measured of nnU-Net inside of its own environment: no module of autoseg is imported here.

A child of `beside_nnunet`: its last line of output is JSON with ``seconds``, and what else it found.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def export(arguments: dict[str, Any]) -> dict[str, Any]:
    """Label map on the file's grid from logits ``(K, Z, Y, X)``, by nnU-Net's own function and its default resampling."""
    from functools import partial

    import numpy as np
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape as convert
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    logits = np.load(arguments["logits"]).astype(np.float32)
    shape = tuple(arguments["file"])
    labels = {"background": 0} | {f"organ {number}": number for number in range(1, len(logits))}
    resample = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
    spacing = [n_out / n_in for n_out, n_in in zip(shape, logits.shape[1:])]
    plans = SimpleNamespace(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2])
    configuration = SimpleNamespace(spacing=spacing, resampling_fn_probabilities=resample)
    properties = {
        "spacing": [1.0, 1.0, 1.0],
        "shape_after_cropping_and_before_resampling": shape,
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, edge] for edge in shape],
    }
    started = time.perf_counter()
    found = convert(logits, plans, configuration, LabelManager(labels, None), properties, num_threads_torch=arguments["cores"])
    seconds = time.perf_counter() - started
    np.save(arguments["out"], np.asarray(found, np.uint8))
    return {"seconds": seconds}


def train(arguments: dict[str, Any]) -> dict[str, Any]:
    """Trains for so many seconds with batch 2 and the rate annealed over them, then validates as nnU-Net does, with mirroring."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    plans = Path(arguments["plans"])
    content = json.loads(plans.read_text())
    content["configurations"][arguments["configuration"]]["batch_size"] = 2
    plans.write_text(json.dumps(content))
    trainer = get_trainer_from_args(arguments["dataset"], arguments["configuration"], 0, device=torch.device("cpu"))
    trainer.save_every = 10**9
    trainer.on_train_start()
    started, steps = time.perf_counter(), 0
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    while (share := (time.perf_counter() - started) / arguments["seconds"]) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - share) ** 0.9
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    seconds = time.perf_counter() - started
    trainer.on_train_end()
    trainer.set_deep_supervision_enabled(False)
    trainer.perform_actual_validation(False)
    return {"seconds": seconds, "steps": steps, "validation": str(Path(trainer.output_folder) / "validation")}


def main() -> None:
    """``nnunet_side.py WHAT JSON``."""
    what, arguments = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps({"export": export, "train": train}[what](arguments)))


if __name__ == "__main__":
    main()
