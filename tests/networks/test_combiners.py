"""Networks that combine the members of an ensemble: results worked out by hand, and the average at initialisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from autoseg.inference.merge_labels import merge_organs
from autoseg.networks.combiners import MAX_LOG_RATIO, LogitsConvolution, MajorityVote, MaxConfidence, MetaUNet
from autoseg.schema import Labels

TWO = Labels(("ball", "bar"), ((1,), (2,)))
UNET = {"features": [4, 8], "strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3], [3, 3]]}


def stack(*channels: list[float]) -> Tensor:
    """Logarithms of ratios to background, one list a channel, as a batch of one line of voxels."""
    return torch.tensor(channels)[None, :, None] + MAX_LOG_RATIO


def ratios(probabilities: Tensor) -> Tensor:
    """The channels of a member that gives these probabilities ``(B, K, *spatial)``, background first."""
    return (probabilities[:, 1:] / probabilities[:, :1]).log() + MAX_LOG_RATIO


class TestMaxConfidence:
    def test_the_most_confident_organ_above_one_half_wins(self) -> None:
        network = MaxConfidence(dim=2, in_channels=2, out_channels=3, channels=[[0], [1]], members=[[0, 1], [1, 2]])
        x = stack([-1.0, 2.0, 1.0, -3.0, 0.1], [-2.0, -1.0, 3.0, 0.5, 0.2])
        assert network(x).argmax(1).flatten().tolist() == [0, 1, 2, 2, 2]

    def test_of_several_models_of_an_organ_the_surest_speaks(self) -> None:
        network = MaxConfidence(dim=2, in_channels=3, out_channels=3, channels=[[0, 2], [1]], members=[[0, 1], [1, 2], [2, 3]])
        assert network(stack([-4.0, 1.0], [1.0, 2.0], [2.0, -5.0])).argmax(1).flatten().tolist() == [1, 2]

    def test_a_model_of_several_organs_alone_stays_what_it_is(self) -> None:
        probabilities = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0)).softmax(1)
        network = MaxConfidence(dim=2, in_channels=3, out_channels=4, channels=[[0], [1], [2]], members=[[0, 3]])
        assert torch.equal(network(ratios(probabilities)).argmax(1), probabilities.argmax(1))

    def test_an_organ_counts_within_its_own_models_mask_only(self) -> None:
        """The first model's mask shows its second organ; of that organ another model was chosen, which sees nothing there."""
        network = MaxConfidence(dim=2, in_channels=3, out_channels=3, channels=[[0], [2]], members=[[0, 2], [2, 3]])
        assert network(stack([1.0, 1.0], [2.0, 0.5], [-1.0, -1.0])).argmax(1).flatten().tolist() == [0, 1]

    def test_organs_of_one_model_each_are_merged_as_their_masks_are(self) -> None:
        """MOvpUNet: the same map as from the models' masks and confidences."""
        ball, bar = (torch.rand(1, 1, 20, 30, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
        members = [torch.cat([1 - one, one], 1) for one in (ball, bar)]
        network = MaxConfidence(dim=2, in_channels=2, out_channels=3, channels=[[0], [1]], members=[[0, 1], [1, 2]])
        found = network(torch.cat([ratios(one) for one in members], 1)).argmax(1)[0].numpy()
        shares = {name: one[0, 0].numpy() for name, one in zip(TWO.names, (ball, bar), strict=True)}
        maps = {name: np.where(share > 0.5, value, 0) for value, (name, share) in enumerate(shares.items(), start=1)}
        own = {name: name for name in TWO.names}
        merged, conflicts = merge_organs(maps, own, TWO, lambda organ, voxels: shares[organ][tuple(voxels)])
        assert conflicts > 100
        assert np.array_equal(found, merged)

    def test_regions_do_not_compete(self) -> None:
        network = MaxConfidence(dim=2, in_channels=2, out_channels=2, channels=[[0], [1]], members=[[0, 2]])
        assert (network(stack([1.0, -1.0, 3.0], [2.0, 1.0, -4.0]))[0, :, 0] > 0).tolist() == [[True, False, True], [True, True, False]]

    def test_what_was_padded_is_background(self) -> None:
        network = MaxConfidence(dim=2, in_channels=2, out_channels=3, channels=[[0], [1]], members=[[0, 1], [1, 2]])
        assert network(torch.zeros(1, 2, 3, 3)).softmax(1)[:, 0].min() > 0.99


class TestMajorityVote:
    THREE = {"channels": [[0, 2, 4], [1, 3, 5]], "members": [[0, 2], [2, 4], [4, 6]]}

    def test_most_members_win_however_sure_the_others_are_and_probabilities_break_ties(self) -> None:
        network = MajorityVote(dim=2, in_channels=6, out_channels=3, **self.THREE)
        one, two = ([9.0, -1.0, 0.5, 0.4], [-5.0, -5.0, -5.0, -5.0]), ([-0.1, 0.2, -1.0, -3.0], [-5.0, -5.0, 0.2, -0.1])
        three = ([-0.1, 0.1, -9.0, -9.0], [-9.0, -9.0, -9.0, 3.0])
        found = network(stack(*one, *two, *three))
        assert found.argmax(1).flatten().tolist() == [0, 1, 0, 2], "of ties the surest: background, and the second organ"
        first = found.half().softmax(1)[0, :, 0, 0]
        assert first[0] > 0.5 > first[1] > first[2], "though the first member is sure of the other organ"

    def test_regions_have_the_majority_each(self) -> None:
        network = MajorityVote(dim=2, in_channels=6, out_channels=2, **self.THREE)
        votes = stack([9.0, 1.0], [-9.0, 1.0], [-0.1, 1.0], [-1.0, -9.0], [-0.1, -9.0], [1.0, 0.1])
        assert (network(votes)[0, :, 0] > 0).tolist() == [[False, True], [False, True]]

    def test_members_of_other_organs_are_refused(self) -> None:
        with pytest.raises(ValueError, match="members of the same organs"):
            MajorityVote(dim=2, in_channels=2, out_channels=3, channels=[[0], [1]], members=[[0, 1], [1, 2]])


class TestStart:
    def test_a_single_model_is_its_own_average(self) -> None:
        probabilities = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0)).softmax(1)
        average = LogitsConvolution(dim=2, in_channels=3, out_channels=4, channels=[[0], [1], [2]])
        assert torch.allclose(average(ratios(probabilities)).softmax(1), probabilities, atol=1e-6)

    def test_several_models_of_an_organ_are_averaged(self) -> None:
        average = LogitsConvolution(dim=2, in_channels=3, out_channels=3, channels=[[0, 2], [1]])
        logits = average(stack([1.0, 4.0], [2.0, -2.0], [3.0, -2.0]))[0, :, 0]
        assert torch.allclose(logits, torch.tensor([[0.0, 0.0], [2.0, 1.0], [2.0, -2.0]]), atol=1e-5)

    @pytest.mark.parametrize("size", [(8, 8), (7, 9)])
    def test_the_meta_unet_begins_as_the_average(self, size: tuple[int, int]) -> None:
        shape = {"dim": 2, "in_channels": 3, "out_channels": 3, "channels": [[0, 2], [1]]}
        x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 * MAX_LOG_RATIO
        assert torch.equal(MetaUNet(**shape, **UNET)(x), LogitsConvolution(**shape)(x))

    def test_channels_that_make_no_sense_are_refused(self) -> None:
        for channels, outputs in (([[0], []], 3), ([[0], [2]], 3), ([[0], [1]], 5)):
            with pytest.raises(ValueError, match="ensemble: expected"):
                LogitsConvolution(dim=2, in_channels=2, out_channels=outputs, channels=channels)
