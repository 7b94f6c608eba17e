"""Folders of trained models as nnU-Net v2 writes and predicts with them: plans, dataset, fingerprint and one checkpoint a fold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...runtime.serialization import atomic_write, write_json
from ...schema import Configuration, Labels, Plan
from ...schema.dataset import Fingerprint
from .weights import to_nnunet

SCHEMES = {
    "ct": "CTNormalization",
    "zscore": "ZScoreNormalization",
    "nonorm": "NoNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
"""Normalisation schemes of this project to nnU-Net's."""

RAS = "SAR"
"""The orientation, by array axes, to which nnU-Net's ``NibabelIOWithReorient`` turns files."""

NIFTI = (".nii", ".nii.gz")


def write_model_folder(
    folder: Path, plan: Plan, configuration: Configuration, weights: Mapping[str, Mapping[str, torch.Tensor]], fingerprint: Fingerprint
) -> list[str]:
    """Writes a model that nnU-Net predicts with (``nnUNetv2_predict_from_modelfolder -m FOLDER -f 0``).

    Args:
        folder: Model folder; for ``nnUNetv2_predict`` it is ``DatasetNNN_Name/nnUNetTrainer__nnUNetPlans__CONFIGURATION``.
        weights: Fold (a number) to the state dict of its `networks.unet.PlainUNet`.

    Returns:
        What nnU-Net does otherwise with this model, one sentence each.

    Raises:
        ValueError: nnU-Net has nothing that would be equal; the message says what.
    """
    _check(plan, configuration)
    name = configuration.name
    axes = _mirror_axes(plan, configuration)
    states = {fold: to_nnunet({key: _plain(tensor) for key, tensor in state.items()}) for fold, state in weights.items()}
    write_json(folder / "plans.json", plans_of(plan, configuration), digest=False)
    write_json(folder / "dataset.json", dataset_of(plan, len(fingerprint.cases)), digest=False)
    write_json(folder / "dataset_fingerprint.json", _fingerprint(plan, fingerprint), digest=False)
    for fold, state in states.items():
        checkpoint = {
            "network_weights": state,
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": name},
            "inference_allowed_mirroring_axes": axes,
        }
        with atomic_write(folder / f"fold_{fold}" / "checkpoint_final.pth") as partial:
            torch.save(checkpoint, partial)
    return _differences(plan, configuration, axes)


def plans_of(plan: Plan, configuration: Configuration) -> dict[str, Any]:
    """``plans.json`` with this one configuration."""
    order = plan.order_of(configuration)
    reader = "SimpleITKIO"
    if plan.orientation == RAS:
        reader = "NibabelIOWithReorient" if plan.file_ending in NIFTI else "SimpleITKIOWithReorient"
    shape, spacing = configuration.median_shape, configuration.spacing
    return {
        "dataset_name": plan.dataset,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [*(1.0,) * (3 - len(spacing)), *spacing],
        "original_median_shape_after_transp": [*(1,) * (3 - len(shape)), *shape],
        "image_reader_writer": reader,
        "transpose_forward": list(order),
        "transpose_backward": [order.index(axis) for axis in range(len(order))],
        "configurations": {configuration.name: _configuration(configuration)},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": _intensities(plan, configuration),
    }


def dataset_of(plan: Plan, cases: int) -> dict[str, Any]:
    """``dataset.json``: labels without gaps, as nnU-Net writes the number of the output channel."""
    labels = plan.labels
    values: dict[str, Any] = {"background": 0}
    for name, members in zip(labels.names, labels.internal_members, strict=True):
        values[name] = list(members) if labels.regions else labels.names.index(name) + 1
    if labels.internal_ignore is not None:
        values["ignore"] = labels.internal_ignore
    described: dict[str, Any] = {
        "channel_names": {str(number): name for number, name in enumerate(plan.channels)},
        "labels": values,
        "numTraining": cases,
        "file_ending": plan.file_ending,
    }
    if labels.regions:
        described["regions_class_order"] = [labels.base_values.index(value) + 1 for value in labels.regions_class_order]
    return described


def _configuration(configuration: Configuration) -> dict[str, Any]:
    dim, options = configuration.dim, configuration.built_options
    resampling: dict[str, Any] = {}
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        resampling[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        resampling[f"resampling_fn_{what}_kwargs"] = {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
    kind = "torch.nn.modules.{}" + f"{dim}d"
    network = {
        "n_stages": len(options["features"]),
        "features_per_stage": list(options["features"]),
        "conv_op": kind.format("conv.Conv"),
        "kernel_sizes": [list(one) for one in options["kernel_sizes"]],
        "strides": [list(one) for one in options["strides"]],
        "n_conv_per_stage": list(options["convs_per_stage"]),
        "n_conv_per_stage_decoder": list(options["decoder_convs"]),
        "conv_bias": True,
        "norm_op": kind.format("instancenorm.InstanceNorm"),
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "data_identifier": f"nnUNetPlans_{configuration.name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "median_image_size_in_voxels": list(configuration.median_shape),
        "spacing": list(configuration.spacing),
        "normalization_schemes": [_scheme(one) for one in configuration.normalization],
        "use_mask_for_norm": list(configuration.mask_normalization),
        **resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": network,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": configuration.batch_dice,
    }


def _check(plan: Plan, configuration: Configuration) -> None:
    """Refuses what nnU-Net cannot do with a plain network and its own preprocessing."""
    one = configuration
    reasons = {
        f"the network {one.network}": one.network != "plain_unet",
        "pictures of two axes": len(plan.transpose) != 3,
        "the first stage of a cascade": one.previous_stage is not None,
        "adjacent slices as channels": one.slices != 1,
        "a locator": one.locator is not None,
        "a candidate region": one.region is not None,
        "surroundings of the patch": bool(one.context),
        "slices of a fixed size": bool(one.center_crop or one.slice_shape),
        "one output for one organ": one.sigmoid,
        "a plain mean of tiles": one.tiling.mean != "gaussian",
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise ValueError(f"{one.name}: expected a plain_unet as nnU-Net has, found {', '.join(found)}; nnU-Net cannot predict with it")


def _scheme(name: str) -> str:
    head, *numbers = name.split(":")
    if head == "window" and len(numbers) == 2:
        return SCHEMES["ct"]
    if name not in SCHEMES:
        raise ValueError(f"normalisation: expected one of {', '.join(SCHEMES)} or window:WIDTH:LEVEL, found {name}; nnU-Net has no equal")
    return SCHEMES[name]


def _intensities(plan: Plan, configuration: Configuration) -> dict[str, dict[str, float]]:
    """By channel; a fixed window is a range with its low end for a mean and its width for a deviation."""
    values = {}
    for number, (scheme, intensity) in enumerate(zip(configuration.normalization, plan.intensities, strict=True)):
        found = {name: float(value) for name, value in asdict(intensity).items()}
        if scheme.startswith("window:"):
            width, level = map(float, scheme.split(":")[1:])
            low, high = level - width / 2, level + width / 2
            found |= {"percentile_00_5": low, "percentile_99_5": high, "mean": low, "std": width}
        values[str(number)] = found
    return values


def _mirror_axes(plan: Plan, configuration: Configuration) -> tuple[int, ...] | None:
    """Axes that are flipped in prediction, without that from right to left where labels change sides; None for none."""
    mirroring = configuration.mirroring
    sided = bool(mirroring.pairs)
    return tuple(axis for axis in mirroring.axes if not (sided and axis == mirroring.lateral_axis)) or None


def _fingerprint(plan: Plan, fingerprint: Fingerprint) -> dict[str, Any]:
    cases, properties = fingerprint.cases, {str(number): asdict(one) for number, one in enumerate(plan.intensities)}
    shares = sorted(case.relative_size for case in cases)
    return {
        "foreground_intensity_properties_per_channel": properties,
        "median_relative_size_after_cropping": shares[len(shares) // 2] if shares else math.nan,
        "shapes_after_crop": [list(case.shape) for case in cases],
        "spacings": [list(case.spacing) for case in cases],
    }


def _differences(plan: Plan, configuration: Configuration, axes: tuple[int, ...] | None) -> list[str]:
    found = []
    if plan.orientation not in ("", RAS):
        found.append(f"images must have the orientation {plan.orientation} (array axes): nnU-Net takes them as they lie in the file")
    if len(axes or ()) < len(configuration.mirroring.axes):
        found.append("images are not flipped from right to left, as nnU-Net cannot exchange the labels of the two sides")
    if not plan.labels.regions and plan.labels.base_values != tuple(range(1, len(plan.labels.names) + 1)):
        found.append(f"label values are {_renumbered(plan.labels)}, as nnU-Net writes them without gaps")
    if configuration.tiling.step != 0.5:
        found.append(f"tiles are {configuration.tiling.step:g} of a patch apart here: give -step_size {configuration.tiling.step:g}")
    return found


def _renumbered(labels: Labels) -> str:
    pairs = zip(labels.names, labels.members, strict=True)
    return ", ".join(f"{name} {number} (here {members[0]})" for number, (name, members) in enumerate(pairs, start=1))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """On the processor, float32, in the usual layout of memory."""
    return tensor.detach().to("cpu", torch.float32).contiguous()
