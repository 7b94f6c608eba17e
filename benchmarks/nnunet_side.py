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


def modelled(arguments: dict[str, Any]) -> dict[str, Any]:
    """Seconds of nnU-Net's parts of predicting one image: preprocessing, some of its tiles, and export with writing.

    The logits that are exported are those of nothing, which take the same time.
    """
    import numpy as np
    import torch
    from nnunetv2.inference.export_prediction import export_prediction_from_logits
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(arguments["model"], (0,))
    plans, configuration, network = predictor.plans_manager, predictor.configuration_manager, predictor.network.eval()
    started = time.perf_counter()
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case([arguments["image"]], None, plans, configuration, predictor.dataset_json)
    preprocessing = time.perf_counter() - started
    patch = tuple(configuration.patch_size)
    margins = [(0, 0), *((0, max(0, edge - size)) for edge, size in zip(patch, data.shape[1:]))]
    image = torch.from_numpy(np.pad(np.asarray(data, np.float32), margins))
    steps = compute_steps_for_sliding_window(image.shape[1:], patch, 0.5)
    starts = [(z, y, x) for z in steps[0] for y in steps[1] for x in steps[2]]
    seconds = []
    with torch.inference_mode():
        for number in range(arguments["tiles"] + 1):
            z, y, x = starts[number * (len(starts) - 1) // arguments["tiles"]]
            tile = image[None, :, z : z + patch[0], y : y + patch[1], x : x + patch[2]].contiguous()
            started = time.perf_counter()
            network(tile)
            seconds.append(time.perf_counter() - started)
    logits = np.zeros((predictor.label_manager.num_segmentation_heads, *data.shape[1:]), np.float16)
    started = time.perf_counter()
    export_prediction_from_logits(logits, properties, configuration, plans, predictor.dataset_json, arguments["out"])
    return {
        "preprocessing_seconds": preprocessing,
        "export_seconds": time.perf_counter() - started,
        "tile_seconds": seconds[1:],  # the first one prepares what the others use
        "tiles": len(starts),
        "mirrored_copies": 2 ** len(patch),  # its trainers mirror along all axes
        "copies_of_this_model": 2 ** len(predictor.allowed_mirroring_axes or ()),
        "patch": list(map(int, patch)),
        "grid": list(map(int, data.shape[1:])),
    }


def main() -> None:
    """``nnunet_side.py WHAT JSON``."""
    what, arguments = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps({"export": export, "train": train, "modelled": modelled}[what](arguments)))


if __name__ == "__main__":
    main()
