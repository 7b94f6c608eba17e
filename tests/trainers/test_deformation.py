"""Elastic deformation, shear, grid distortion and translation: against SciPy, for a batch, and image and labels together."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates

from autoseg.schema import Budget, Labels, Mirroring
from autoseg.schema.conventions import OUTSIDE
from autoseg.schema.settings import TrainSettings
from autoseg.schema.training_options import AugmentationOptions
from autoseg.trainers.augmentation import spatial
from autoseg.trainers.augmentation.augment import Augmentation, apply, draw, size_for
from autoseg.trainers.augmentation.deformation import ControlGrid, DisplacementField, draw_elastic, draw_stretch, spline_weights, stretched
from autoseg.trainers.augmentation.spatial import SpatialMap, rotation_matrix, shear_matrix, warp
from autoseg.trainers.run_options import default_options

LABELS = Labels(("kidney_left", "liver", "kidney_right"), ((10,), (20,), (30,)))
NOTHING = {
    f"{name}_probability": 0.0
    for name in ("rotation", "scale", "noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma", "mirror")
}
EVERYTHING = AugmentationOptions(
    **NOTHING
    | {f"{name}_probability": 1.0 for name in ("rotation", "scale", "shear", "elastic", "distortion", "translation")}
    | {"elastic_spacing": 6.0, "elastic_voxels": 2.0, "axis_scale_range": (0.9, 1.1)}
)
CPU = torch.device("cpu")
REST = 0.9955002834343927
"""Next number of the generator after a draw with default options."""


def drawn(options: AugmentationOptions, patch: tuple[int, ...], seed: int = 0) -> Augmentation:
    rng = np.random.default_rng(seed)
    return draw(rng, options, patch_size=patch, channels=1, mirroring=Mirroring(tuple(range(len(patch)))), labels=LABELS)


def a_source(size: tuple[int, ...], n_labels: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, n_labels + 1, *[max(2, n // 6) for n in size]), generator=generator)
    fields = torch.nn.functional.interpolate(coarse, size=size, mode="trilinear" if len(size) == 3 else "bilinear")[0]
    return torch.randn((1, *size), generator=generator), fields.argmax(0).to(torch.int16)


def places(mapping: SpatialMap, patch: tuple[int, ...]) -> np.ndarray:
    """``A (x + s(x) + u(x))``, ``(dim, *patch)`` in double precision, with SciPy's splines."""
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in patch], indexing="ij"))
    where = grid.copy()
    if mapping.stretch:
        for axis, (lines, size) in enumerate(zip(mapping.stretch, patch, strict=True)):
            knots = np.linspace(0, size - 1, len(lines)) - (size - 1) / 2
            where[axis] += np.interp(grid[axis], knots, lines)
    if mapping.elastic is not None:
        field = mapping.elastic.displacements()
        for axis, (size, spacing, points) in enumerate(zip(patch, mapping.elastic.spacing, mapping.elastic.shape, strict=True)):
            knots = spacing * (np.arange(points + 4) - 3 - (points - 3) / 2)
            weights = BSpline.design_matrix(np.arange(size) - (size - 1) / 2, knots, 3).toarray()
            field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis + 1)), 0, axis + 1)
        where += field
    return np.tensordot(np.asarray(mapping.matrix), where, axes=1)


PATCHES = [(9, 14, 12), (21, 16)]


class TestAgainstSciPy:
    @pytest.mark.parametrize("patch", PATCHES)
    @pytest.mark.parametrize("options", [{"elastic_points": 8}, {"elastic_spacing": 5.0, "elastic_distribution": "normal"}])
    def test_image_and_labels_are_read_where_the_map_says(self, patch, options):
        augmentation = drawn(dataclasses.replace(EVERYTHING, translation_probability=0.0, **options), patch, seed=3)
        mapping, size = augmentation.spatial_map, size_for(augmentation)
        image, labels = a_source(size)
        new_image, new_labels = apply(augmentation, image, labels)
        source = places(mapping, patch) + np.reshape([(n - 1) / 2 for n in size], (-1, *[1] * len(size)))
        read = partial(map_coordinates, coordinates=source, order=1, mode="grid-constant")
        np.testing.assert_allclose(new_image[0].numpy(), read(image[0].double().numpy()), atol=5e-4)
        shares = np.stack([read((labels == value).double().numpy()) for value in range(4)])
        own = np.take_along_axis(shares, new_labels.numpy()[None].astype(int), 0)[0]
        assert (own >= shares.max(0) - 1e-3).all()

    def test_weights_are_those_of_uniform_cubic_splines(self):
        weights = spline_weights(40, 7.5, 9)
        knots = 7.5 * (np.arange(13) - 3 - 3)
        np.testing.assert_allclose(weights, BSpline.design_matrix(np.arange(40) - 19.5, knots, 3).toarray(), atol=1e-12)
        np.testing.assert_allclose(weights.sum(1), 1)

    def test_control_points_displaced_alike_move_everything_alike(self):
        values = np.broadcast_to(np.reshape([2.0, -3.0], (2, 1, 1)), (2, 5, 6))
        grid = ControlGrid((6.0, 6.0), (5, 6), tuple(values.ravel().tolist()))
        identity = ((1.0, 0.0), (0.0, 1.0))
        image, labels = a_source((20, 24))
        moved, moved_labels = warp(image[None], labels[None], [SpatialMap(identity, elastic=grid)], (12, 16))
        torch.testing.assert_close(moved[0], image[:, 6:18, 1:17], atol=1e-4, rtol=0)
        assert torch.equal(moved_labels[0], labels[6:18, 1:17])


class TestBatch:
    @pytest.mark.parametrize(("patch", "lead"), [((7, 10, 9), ()), ((12, 10), ()), ((12, 10), (4,))])
    @pytest.mark.parametrize("chunk", [64, 1 << 16])
    def test_a_batch_is_as_each_alone(self, patch, lead, chunk, monkeypatch):
        monkeypatch.setattr(spatial, "CPU_CHUNK", chunk)
        often = dataclasses.replace(EVERYTHING, elastic_probability=0.6, distortion_probability=0.5, translation_probability=0.0)
        augmentations = [drawn(often, patch, seed) for seed in range(6)]
        identity = tuple(tuple(float(i == j) for j in range(len(patch))) for i in range(len(patch)))
        maps = [SpatialMap(identity), *(one.spatial_map for one in augmentations)]
        assert {one.elastic is None for one in maps} == {True, False}
        generator = torch.Generator().manual_seed(1)
        images = torch.randn((7, 2, *lead, *[n + 6 for n in patch]), generator=generator)
        labels = torch.randint(OUTSIDE, 5, (7, *lead, *[n + 6 for n in patch]), generator=generator).to(torch.int16)
        each = [warp(images[[number]], labels[[number]], [mapping], patch) for number, mapping in enumerate(maps)]
        together = warp(images, labels, maps, patch)
        monkeypatch.setattr(spatial._Places, "at_once", (len(maps), patch[0]))  # as on a GPU
        at_once = warp(images, labels, maps, patch)
        for number, alone in enumerate(each):
            assert torch.equal(together[0][number], alone[0][0])
            assert torch.equal(together[1][number], alone[1][0])
            torch.testing.assert_close(at_once[0][number], alone[0][0], atol=1e-4, rtol=1e-4)
            assert (at_once[1][number] == alone[1][0]).float().mean() > 0.999

    def test_other_control_grids_in_one_batch_are_refused(self):
        maps = [drawn(dataclasses.replace(EVERYTHING, elastic_spacing=spacing), (12, 10)).spatial_map for spacing in (4.0, 6.0)]
        with pytest.raises(ValueError, match="control grids of one spacing"):
            spatial._Places(maps, (20, 20), (12, 10), torch.device("cpu"))._displacements(maps)


class TestWhatIsDrawn:
    def test_switched_off_nothing_is_drawn_and_all_else_is_as_before(self):
        """Numbers of version 0.1.0: plain training has the same weights, bit by bit."""
        rng = np.random.default_rng(7)
        augmentation = draw(rng, AugmentationOptions(), patch_size=(20, 24, 28), channels=1, mirroring=Mirroring((0, 1, 2)), labels=LABELS)
        assert (augmentation.stretch, augmentation.elastic, augmentation.translation, augmentation.offset) == ((), None, (), ())
        assert rng.random() == pytest.approx(REST, abs=1e-12)

    @pytest.mark.parametrize("patch", [(20, 24, 28), (24, 20), (4, 20, 16)])
    def test_each_in_its_range_and_the_same_for_the_same_generator(self, patch):
        for seed in range(10):
            one, two = (drawn(EVERYTHING, patch, seed) for _ in range(2))
            assert one == two
            axes = patch[one.planar :]
            assert len(one.stretch) == len(one.elastic.shape) == len(one.matrix) == len(axes)
            assert np.abs(one.elastic.displacements()).max() <= 2.0
            assert all(abs(n) <= round(0.1 * size) for n, size in zip(one.translation, patch, strict=True))
            for lines, size in zip(one.stretch, axes, strict=True):
                steps = np.diff(lines) + (size - 1) / 5
                assert lines[0] == lines[-1] == pytest.approx(0)
                assert 0.7 / 1.3 <= steps.min() / steps.max() <= 1
        normal = draw_elastic(np.random.default_rng(0), AugmentationOptions(elastic_distribution="normal"), (128, 128, 128))
        assert np.std(normal.values) == pytest.approx(4.0, rel=0.1)

    def test_the_papers_grids(self):
        thaler = draw_elastic(np.random.default_rng(0), AugmentationOptions(elastic_points=8, elastic_voxels=7.5), (160, 128, 96))
        assert (thaler.shape, thaler.spacing) == ((8, 8, 8), (32.0, 25.6, 19.2))
        roth = draw_elastic(np.random.default_rng(0), AugmentationOptions(), (132, 132, 116))
        assert (roth.shape, roth.spacing) == ((8, 8, 7), (32.0,) * 3)
        assert 3.9 < np.abs(roth.values).max() <= 4

    def test_nothing_folds_over_however_large_the_displacements(self):
        options = AugmentationOptions(elastic_voxels=100.0, elastic_spacing=8.0)
        for seed in range(5):
            grid = draw_elastic(np.random.default_rng(seed), options, (24, 24, 24))
            field = DisplacementField(grid.displacements()[None], grid.spacing, (24,) * 3, CPU).planes(0, 24)[0].numpy()
            slopes = np.stack([np.stack(np.gradient(one)) for one in field])
            assert np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3)).min() > 0
            assert np.abs(field).max() > 1.5

    def test_a_grid_distortion_keeps_borders_and_order(self):
        for seed in range(5):
            (lines,) = draw_stretch(np.random.default_rng(seed), AugmentationOptions(distortion_limit=0.9), (31,))
            places = np.arange(31) + stretched(lines, 31)
            assert places[[0, -1]].tolist() == pytest.approx([0, 30])
            assert np.diff(places).min() > 0

    def test_a_shear_keeps_volumes_and_slants(self):
        assert np.linalg.det(shear_matrix([0.2, -0.3, 0.1])) == pytest.approx(1)
        assert shear_matrix([np.pi / 4]).tolist() == [[1, pytest.approx(1)], [0, 1]]
        only = AugmentationOptions(**NOTHING | {"shear_probability": 1.0, "shear_degrees": 20.0})
        for patch in ((12, 10), (3, 12, 10)):
            matrix = np.array(drawn(only, patch).matrix)
            assert matrix[0, 0] == matrix[1, 1] == 1
            assert 0 < abs(matrix[0, 1]) <= np.tan(np.radians(20))


class TestWhatIsLoaded:
    @pytest.mark.parametrize("patch", [(8, 12, 10), (4, 20, 16), (16, 12)])
    def test_is_enough_and_hardly_more(self, patch):
        more = []
        for seed in range(8):
            augmentation = drawn(EVERYTHING, patch, seed)
            inside = dataclasses.replace(augmentation, translation=())
            size = size_for(augmentation)
            image, labels = apply(inside, torch.ones((1, *size)), torch.ones(size, dtype=torch.int16))
            assert (labels == 1).all()
            torch.testing.assert_close(image, torch.ones_like(image), atol=1e-4, rtol=0)
            plain = dataclasses.replace(inside, elastic=None)
            more.append(max(np.subtract(size, size_for(plain))))
        assert max(more) <= 2 * 4
        assert min(more) >= 0

    def test_a_translation_reads_elsewhere(self):
        image, labels = a_source((14, 16, 15))
        moved = apply(Augmentation((8, 8, 8), translation=(2, -3, 1)), image, labels)
        assert torch.equal(moved[0], image[:, 5:13, 1:9, 4:12])
        assert torch.equal(moved[1], labels[5:13, 1:9, 4:12])
        beyond = apply(Augmentation((8, 8, 8), translation=(0, 0, 30)), image, labels)
        assert not beyond[0].any()
        assert not beyond[1].any()

    @pytest.mark.parametrize("patch", [(6, 8, 8), (2, 8, 7), (8, 8)])
    def test_a_translation_of_what_is_deformed_is_that_of_the_source(self, patch):
        """A whole volume is moved in memory, a patch by reading it elsewhere: both are the same."""
        augmentation = dataclasses.replace(drawn(EVERYTHING, patch, 2), translation=(1, -2, 3)[-len(patch) :])
        image, labels = a_source(tuple(n + 20 for n in patch))
        size = size_for(augmentation)
        starts = [have // 2 - want // 2 + by for have, want, by in zip(labels.shape, size, augmentation.translation, strict=True)]
        part = tuple(slice(start, start + want) for start, want in zip(starts, size, strict=True))
        there = apply(dataclasses.replace(augmentation, translation=()), image[(..., *part)], labels[part])
        here = apply(augmentation, image, labels)
        assert torch.equal(here[0], there[0])
        assert torch.equal(here[1], there[1])


@pytest.mark.parametrize("patch", [(9, 14, 12), (3, 14, 12), (14, 12)])
def test_labels_and_every_further_map_move_with_the_image(patch):
    for seed in range(4):
        augmentation = drawn(EVERYTHING, patch, seed)
        _, labels = a_source(tuple(n + 16 for n in patch))
        mask = (labels == 1).to(torch.int16)
        image, both = apply(augmentation, mask[None].float(), torch.stack([mask, labels, mask]))
        clear = (image[0] - 0.5).abs() > 0.05
        assert torch.equal((image[0] > 0.5)[clear], (both[0] == 1)[clear])
        assert torch.equal(both[0], both[2])
        assert clear.float().mean() > 0.8


def test_no_rotation_leaves_a_deformed_patch_upright():
    only = AugmentationOptions(**NOTHING | {"elastic_probability": 1.0})
    augmentation = drawn(only, (24, 20))
    assert augmentation.matrix is None
    assert augmentation.spatial_map.matrix == ((1.0, 0.0), (0.0, 1.0))
    assert np.array_equal(rotation_matrix([0.0]), np.eye(2))


class TestOptionsByName:
    def test_names_of_augmentation_stand_beside_the_others(self):
        given = {
            "loss": "ce",
            "elastic_probability": 0.5,
            "scale_range": [0.9, 1.1],
            "augmentation": {"shear_degrees": 5, "elastic_probability": 1},
        }
        changed = TrainSettings(options=given).changed_options
        assert changed == {"loss": "ce", "augmentation": {"shear_degrees": 5, "elastic_probability": 0.5, "scale_range": (0.9, 1.1)}}
        options = default_options(Budget("iterations", 10, 1), "cpu", batch=2, changes=given)
        assert options.augmentation == AugmentationOptions(shear_degrees=5, elastic_probability=0.5, scale_range=(0.9, 1.1))
        assert options.augmentation == default_options(Budget("iterations", 10, 1), "cpu", batch=2, changes=changed).augmentation

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"elastic_probabilty": 1}, "training option: expected one of .*elastic_probability.*mean 'elastic_probability'"),
            ({"elastic_probability": "often"}, "elastic_probability: expected 0..1, found 'often'"),
            ({"scale_range": 2}, "scale_range: expected .*found 2"),
            ({"elastic_voxels": "4"}, "elastic_voxels: expected a number"),
            ({"elastic_points": 3}, "elastic_points: expected 0, or a whole number from 4 on, found 3"),
            ({"elastic_spacing": 0}, "elastic_spacing: expected a number above 0"),
            ({"elastic_distribution": "gauss"}, "elastic_distribution: expected 'uniform' or 'normal'"),
            ({"distortion_steps": 2.5}, "distortion_steps: expected a whole number"),
            ({"distortion_limit": 1}, "distortion_limit: expected a share below 1"),
            ({"shear_degrees": 90}, "shear_degrees: expected an angle below 90"),
            ({"axis_scale_range": [0, 1]}, "axis_scale_range.* must be above 0"),
            ({"augmentation": "strong"}, "augmentation: expected options by name, found 'strong'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, given, message):
        with pytest.raises(ValueError, match=message):
            default_options(Budget("iterations", 10, 1), "cpu", batch=2, changes=given)
