"""Plain U-Nets in nnU-Net's hands: names of weights, plans and folders; with the package itself where it is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import labels, make_configuration, make_plan, regions

from autoseg.interop.nnunet.model_folder import dataset_of, plans_of, write_model_folder
from autoseg.interop.nnunet.weights import from_nnunet, to_nnunet
from autoseg.networks import build_network
from autoseg.schema import Configuration, Mirroring, Plan
from autoseg.schema.dataset import Fingerprint

HERE = Path(__file__).parent
THIN = {  # kernels of one slice, strides along some axes
    "features": [4, 6, 8],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3]],
    "convs_per_stage": [2, 1, 3],
    "decoder_convs": [2, 1],
}
CONFIGURATIONS = {
    "2d": make_configuration(2, mirroring=Mirroring()),
    "3d": make_configuration(),
    "thin": make_configuration(network_options=THIN, patch_size=(8, 16, 8)),
}
NONE = Fingerprint((), ())


def network_of(plan: Plan, configuration: Configuration) -> torch.nn.Module:
    """With random weights, also where they begin as 0 or 1."""
    sizes = {"dim": configuration.dim, "in_channels": len(plan.channels), "out_channels": plan.labels.n_outputs}
    network = build_network(configuration.network, **sizes, **configuration.built_options).eval()
    torch.manual_seed(1)
    for tensor in network.parameters():
        torch.nn.init.normal_(tensor, 0, 0.3)
    return network


def nnunet_python() -> str:
    """A Python in which nnU-Net is installed: that of AUTOSEG_NNUNET_PYTHON, or this one."""
    given = os.environ.get("AUTOSEG_NNUNET_PYTHON", "")
    if not given and importlib.util.find_spec("nnunetv2") is None:
        pytest.skip("nnunetv2 is not installed; AUTOSEG_NNUNET_PYTHON may name the Python of an environment that has it")
    return given or sys.executable


def test_names_and_shapes_are_those_of_the_package() -> None:
    expected = dict(line.split(" ", 1) for line in (HERE / "plain_conv_unet_names.txt").read_text().splitlines())
    found = to_nnunet(network_of(make_plan(), CONFIGURATIONS["3d"]).state_dict())
    assert {name: " ".join(map(str, tensor.shape)) for name, tensor in found.items()} == expected


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_there_and_back_are_the_same_tensors(prefix: str) -> None:
    own = network_of(make_plan(), CONFIGURATIONS["thin"]).state_dict()
    back = from_nnunet({prefix + name: tensor for name, tensor in to_nnunet(own).items()})
    assert back.keys() == own.keys() and all(back[name] is own[name] for name in own)


def test_other_weights_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"found encoder\.stem\.convs\.0\.conv\.weight"):
        from_nnunet({"encoder.stem.convs.0.conv.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"found encoder\.0\.0\.conv1"):
        to_nnunet({"encoder.0.0.conv1.weight": torch.zeros(1)})


def test_labels_have_no_gaps_and_regions_keep_their_order() -> None:
    organs = dataset_of(make_plan(labels=labels(ball=2, block=5, ignore=9)), 4)
    assert organs["labels"] == {"background": 0, "ball": 1, "block": 2, "ignore": 3} and "regions_class_order" not in organs
    some = dataset_of(make_plan(labels=regions(whole=(2, 5), core=(5,), order=(2, 5))), 4)
    assert some["labels"] == {"background": 0, "whole": [1, 2], "core": [2]} and some["regions_class_order"] == [1, 2]


def test_plans_turn_axes_and_windows() -> None:
    one = make_configuration(2, slice_axis=1, normalization=("window:400:40",))
    plan = dataclasses.replace(make_plan(one), transpose=(2, 0, 1), orientation="SAR")
    plans = plans_of(plan, one)
    assert plans["transpose_forward"] == [0, 2, 1] and plans["transpose_backward"] == [0, 2, 1]
    assert plans["image_reader_writer"] == "NibabelIOWithReorient"
    assert plans["configurations"]["2d"]["normalization_schemes"] == ["CTNormalization"]
    intensity = plans["foreground_intensity_properties_per_channel"]["0"]
    assert [intensity[key] for key in ("percentile_00_5", "percentile_99_5", "mean", "std")] == [-160, 240, -160, 400]


def test_sides_are_not_flipped_and_what_differs_is_said(tmp_path: Path) -> None:
    one = make_configuration(mirroring=Mirroring((0, 1, 2), 2, ((0, 1),)))
    plan = dataclasses.replace(make_plan(one), orientation="SPL")
    said = write_model_folder(tmp_path, plan, one, {"0": network_of(plan, one).state_dict()}, NONE)
    state = torch.load(tmp_path / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert state["inference_allowed_mirroring_axes"] == (0, 1)
    assert [line.split()[0] for line in said] == ["images", "images", "label"] and "ball 1 (here 2), block 2 (here 5)" in said[2]
    assert {path.name for path in tmp_path.iterdir()} == {"plans.json", "dataset.json", "dataset_fingerprint.json", "fold_0"}
    unique = {tensor.data_ptr() for tensor in state["network_weights"].values()}
    assert len(unique) == len(network_of(plan, one).state_dict()), "a tensor with several names is stored once"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"network": "residual_unet"}, "the network residual_unet"),
        ({"previous_stage": "3d_lowres"}, "first stage of a cascade"),
        ({"sigmoid": True}, "one output"),
    ],
)
def test_what_nnunet_cannot_do_is_refused(tmp_path: Path, changes: dict, found: str) -> None:
    one = make_configuration(**changes)
    with pytest.raises(ValueError, match=found):
        write_model_folder(tmp_path / "model", make_plan(one), one, {}, NONE)
    assert not (tmp_path / "model").exists()


CHILD = """
import sys, numpy as np, torch
from pathlib import Path
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
for folder in Path(sys.argv[1]).iterdir():
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(folder / "model"), (0,))
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    with torch.no_grad():
        np.save(folder / "out.npy", predictor.network.eval()(torch.from_numpy(np.load(folder / "in.npy"))).numpy())
"""


@pytest.mark.slow
def test_logits_are_those_of_the_package(tmp_path: Path) -> None:
    python, expected = nnunet_python(), {}
    for kind, one in CONFIGURATIONS.items():
        plan, batch = make_plan(one), torch.randn(2, 1, *one.patch_size)
        network = network_of(plan, one)
        write_model_folder(tmp_path / kind / "model", plan, one, {"0": network.state_dict()}, NONE)
        np.save(tmp_path / kind / "in.npy", batch.numpy())
        with torch.no_grad():
            expected[kind] = network(batch).numpy()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    for kind, logits in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / kind / "out.npy"), logits, atol=2e-5, rtol=2e-5, err_msg=kind)
