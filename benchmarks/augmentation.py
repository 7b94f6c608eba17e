"""Time of each augmentation on one CPU thread, beside the same transform of batchgenerators.

Run by hand::

    python benchmarks/augmentation.py --patch 40 56 40 --repeats 30

Rows below "as drawn" are drawn only where options or a paper's preset ask for them; "as in PRESET" draws with a preset's probabilities.
Every row forces its transform with the strength of the middle of its range. "as drawn" is the mean over random augmentations with the
probabilities used in training. batchgenerators samples labels by interpolating one-hot maps and images with SciPy (order 1 here, as ours).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from batchgenerators.transforms.abstract_transforms import Compose
from batchgenerators.transforms.color_transforms import BrightnessMultiplicativeTransform, ContrastAugmentationTransform, GammaTransform
from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform
from scipy.ndimage import gaussian_filter

from autoseg.presets.settings import train_settings
from autoseg.schema import Labels, Mirroring
from autoseg.schema.training_options import AugmentationOptions
from autoseg.trainers.augmentation.augment import Augmentation, apply, draw, load_size, size_for
from autoseg.trainers.augmentation.deformation import draw_elastic, draw_stretch
from autoseg.trainers.augmentation.spatial import center_crop, rotation_matrix, shear_matrix

MIDDLE_ANGLE, MIDDLE_SCALE = np.pi / 12, 1.2


def ours(patch: tuple[int, ...]) -> dict[str, Augmentation]:
    """One augmentation a row, for one channel."""
    matrix = rotation_matrix([MIDDLE_ANGLE] * 3) * MIDDLE_SCALE
    rotation = tuple(tuple(map(float, row)) for row in matrix)
    return {
        "crop only": Augmentation(patch),
        "rotation + scale": Augmentation(patch, matrix=rotation),
        "noise": Augmentation(patch, noise_std=0.05),
        "blur": Augmentation(patch, blur=((0.75,) * 3,)),
        "brightness": Augmentation(patch, brightness=(1.1,)),
        "contrast": Augmentation(patch, contrast=(1.1,)),
        "low resolution": Augmentation(patch, low_resolution=(0.75,)),
        "gamma": Augmentation(patch, gamma=(1.2,)),
        "mirror": Augmentation(patch, flips=(0, 1, 2)),
    }


def deformed(patch: tuple[int, ...]) -> dict[str, Augmentation]:
    """What is not drawn by default; elastic deformations of 4 voxels on a grid of 32, as in Roth et al."""
    rng, options = np.random.default_rng(0), AugmentationOptions()
    matrix = ours(patch)["rotation + scale"].matrix
    sheared = rotation_matrix([MIDDLE_ANGLE] * 3) @ shear_matrix([np.radians(5)] * 3) * MIDDLE_SCALE
    elastic, stretch = draw_elastic(rng, options, patch), draw_stretch(rng, options, patch)
    return {
        "elastic": Augmentation(patch, elastic=elastic),
        "grid distortion": Augmentation(patch, stretch=stretch),
        "shear, rotation": Augmentation(patch, matrix=tuple(tuple(map(float, row)) for row in sheared)),
        "elastic, rotation": Augmentation(patch, matrix=matrix, elastic=elastic),
        "all in one": Augmentation(patch, matrix=matrix, elastic=elastic, stretch=stretch),
    }


def theirs(patch: tuple[int, ...], probability: float = 1.0) -> dict[str, Callable]:
    """batchgenerators' counterparts; with `probability` below 1 the probabilities of training."""

    def often(p: float) -> float:
        return 1.0 if probability == 1.0 else p

    angle = (MIDDLE_ANGLE, MIDDLE_ANGLE) if probability == 1.0 else (-np.pi / 6, np.pi / 6)
    plain = {"border_mode_data": "constant", "border_mode_seg": "constant", "border_cval_seg": -1, "order_data": 1, "order_seg": 1}
    elastic = SpatialTransform(
        patch, do_elastic_deform=True, alpha=(200, 200), sigma=(10, 10), do_rotation=False, do_scale=False, random_crop=False, **plain
    )
    spatial = SpatialTransform(
        patch,
        do_elastic_deform=False,
        angle_x=angle,
        angle_y=angle,
        angle_z=angle,
        scale=(MIDDLE_SCALE, MIDDLE_SCALE) if probability == 1.0 else (0.7, 1.4),
        random_crop=False,
        **plain,
        p_rot_per_sample=often(0.2),
        p_scale_per_sample=often(0.2),
    )
    more = {"elastic": elastic} if probability == 1.0 else {}
    return more | {
        "rotation + scale": spatial,
        "noise": GaussianNoiseTransform((0, 0.1), p_per_sample=often(0.1)),
        "blur": GaussianBlurTransform((0.5, 1.0), different_sigma_per_axis=True, p_per_sample=often(0.2), p_per_channel=often(0.5)),
        "brightness": BrightnessMultiplicativeTransform((0.75, 1.25), p_per_sample=often(0.15)),
        "contrast": ContrastAugmentationTransform((0.75, 1.25), p_per_sample=often(0.15)),
        "low resolution": SimulateLowResolutionTransform((0.5, 1), True, often(0.5), None, 0, 1, p_per_sample=often(0.25)),
        "gamma": GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=often(0.4)),
        "mirror": MirrorTransform((0, 1, 2)),
    }


def phantom(size: tuple[int, ...], n_labels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random image ``(1, *size)`` and a label map of blobs ``(*size)``."""
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.normal(size=size), 4) for _ in range(n_labels + 1)])
    image = fields[:1] / fields[:1].std() + 0.1 * rng.normal(size=(1, *size))
    return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(fields.argmax(0).astype(np.int16))


def milliseconds(work: Callable[[int], object], repeats: int) -> float:
    """Mean time of the processor of ``work(0), work(1), ...`` after one call to warm up."""
    work(0)
    start = time.process_time()
    for number in range(repeats):
        work(number)
    return (time.process_time() - start) / repeats * 1000


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40), help="voxels per axis")
    parser.add_argument("--labels", type=int, default=2, help="organs in the patch")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    patch, options = tuple(arguments.patch), AugmentationOptions()
    image, segmentation = phantom(load_size(patch, options), arguments.labels)
    print(f"patch {patch}, {arguments.labels} labels, loaded {tuple(segmentation.shape)}, one thread, milliseconds")
    print(f"{'transform':18}{'autoseg':>10}{'batchgenerators':>18}{'ratio':>8}")

    def run_theirs(transform: Callable, size: tuple[int, ...] | None) -> Callable[[int], object]:
        data = image if size is None else center_crop(image, size, 0.0)
        labels = segmentation if size is None else center_crop(segmentation, size, -1)
        return lambda _: transform(data=data[None].numpy().copy(), seg=labels[None, None].numpy().copy())

    references = theirs(patch)
    for name, augmentation in (ours(patch) | deformed(patch)).items():
        mine = milliseconds(lambda _, a=augmentation: apply(a, image, segmentation), arguments.repeats)
        if name in references:
            other = milliseconds(
                run_theirs(references[name], None if name in ("elastic", "rotation + scale") else patch), arguments.repeats
            )
            print(f"{name:18}{mine:10.2f}{other:18.2f}{other / mine:8.1f}")
        else:
            print(f"{name:18}{mine:10.2f}")
    many = arguments.repeats * 10
    labels = Labels(tuple(f"organ {i}" for i in range(arguments.labels)), tuple((i + 1,) for i in range(arguments.labels)))

    def drawn(number: int, options: AugmentationOptions = options) -> Augmentation:
        rng = np.random.default_rng([number])
        return draw(rng, options, patch_size=patch, channels=1, mirroring=Mirroring((0, 1, 2)), labels=labels)

    mine = milliseconds(lambda number: apply(drawn(number), image, segmentation), many)
    other = milliseconds(run_theirs(Compose(list(theirs(patch, 0.0).values())), None), many)
    print(f"{'as drawn':18}{mine:10.2f}{other:18.2f}{other / mine:8.1f}")
    for name in ("roth2018", "thaler2021"):
        asked = AugmentationOptions(**train_settings(name).options["augmentation"])
        mine = milliseconds(lambda number, asked=asked: apply(drawn(number, asked), image, segmentation), arguments.repeats)
        print(f"as in {name:12}{mine:10.2f}")
    read = np.mean([np.prod(size_for(drawn(number))) for number in range(many)]) / np.prod(load_size(patch, options))
    print(f"voxels to load with size_for instead of load_size: {read:.0%}")


if __name__ == "__main__":
    main()
