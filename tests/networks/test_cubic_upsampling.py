"""Cubic upsampling: torch's in 2D, parabolas, constants, each axis for itself."""

import pytest
import torch
import torch.nn.functional as F

from autoseg.networks.cubic_upsampling import upsample_cubic


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_is_torchs_bicubic_with_its_slope(factor):
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    expected = F.interpolate(x, scale_factor=factor, mode="bicubic", align_corners=False)
    assert torch.allclose(upsample_cubic(x, factor, slope=-0.75), expected)


@pytest.mark.parametrize("size", [(7, 4), (3, 5, 2), (1, 1, 1)])
def test_constants_stay(size):
    x = torch.full((1, 2, *size), 3.25)
    result = upsample_cubic(x, 4)
    assert result.shape == (1, 2, *(4 * edge for edge in size))
    assert torch.allclose(result, torch.tensor(3.25))


def test_parabolas_are_exact_away_from_the_border():
    def parabola(position):
        return 2 * position**2 - 3 * position + 1

    coarse, fine = torch.arange(8, dtype=torch.float64), (torch.arange(32, dtype=torch.float64) + 0.5) / 4 - 0.5
    x = parabola(coarse).view(1, 1, 1, 1, 8).expand(1, 1, 2, 3, 8)
    inner = slice(8, 24)
    result = upsample_cubic(x, 4)
    assert torch.allclose(result[..., inner], parabola(fine)[inner].expand(1, 1, 8, 12, 16))


def test_each_axis_for_itself_in_3d():
    lines = [torch.randn(n, dtype=torch.float64) for n in (3, 4, 5)]
    volume = torch.einsum("i,j,k->ijk", *lines)
    a, b, c = (F.interpolate(one.view(1, 1, -1, 1), scale_factor=(2, 1), mode="bicubic").flatten() for one in lines)
    assert torch.allclose(upsample_cubic(volume[None, None], 2, slope=-0.75)[0, 0], torch.einsum("i,j,k->ijk", a, b, c))


def test_gradients():
    x = torch.randn(1, 1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: upsample_cubic(one, 2), x)


def test_a_factor_below_one_is_refused():
    with pytest.raises(ValueError, match="factor of 1 or more, got 0"):
        upsample_cubic(torch.zeros(1, 1, 2, 2), 0)
