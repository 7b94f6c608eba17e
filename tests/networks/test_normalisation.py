"""Instance normalisation with its activation, in channels-last layout, against torch's own."""

import pytest
import torch
from torch import nn

from autoseg.networks.blocks import activation, conv_unit, instance_norm

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def both(dim: int, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[nn.Module, nn.Module, torch.Tensor, torch.Tensor]:
    """Our layer and torch's with the same weights, and the same numbers for each; ours in channels-last layout."""
    torch.manual_seed(0)
    ours = instance_norm(dim, shape[1])
    theirs = (nn.InstanceNorm3d if dim == 3 else nn.InstanceNorm2d)(shape[1], affine=True)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs.load_state_dict(ours.state_dict())
    values = (3 * torch.randn(shape) + 2).to(dtype)
    return ours, theirs, values.contiguous(memory_format=LAYOUTS[dim]).requires_grad_(), values.clone().requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slope", [1.0, 0.01])
@pytest.mark.parametrize(("dim", "shape"), [(3, (2, 5, 6, 7, 8)), (2, (3, 4, 9, 8)), (3, (1, 16, 1, 3, 2))])
def test_values_and_gradients_are_those_of_torch_and_the_layout_is_kept(dtype, slope, dim, shape):
    ours, theirs, x, same = both(dim, shape, dtype)
    found, expected = ours.activated(x, slope), nn.functional.leaky_relu(theirs(same), slope)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=LAYOUTS[dim])
    gradient = torch.randn(shape).to(dtype)
    found.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(x.grad, same.grad)
    assert x.grad.is_contiguous(memory_format=LAYOUTS[dim])
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_a_gradient_that_is_a_part_of_another_tensor_is_taken():
    ours, theirs, x, same = both(3, (2, 4, 3, 5, 6), torch.float32)
    torch.cat((ours.activated(x, 0.01), torch.ones_like(x)), 1).square().sum().backward()
    nn.functional.leaky_relu(theirs(same), 0.01).square().sum().backward()
    torch.testing.assert_close(x.grad, same.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_unit_is_its_parts_one_after_the_other(dim):
    unit = conv_unit(dim, (3, 4), (3,) * dim).to(memory_format=LAYOUTS[dim])
    assert sorted(unit.state_dict()) == ["0.0.bias", "0.0.weight", "0.1.bias", "0.1.weight"]
    image = torch.randn(2, 3, *[6] * dim)
    expected = activation()(nn.functional.instance_norm(unit[0][0](image), None, None, unit[0][1].weight, unit[0][1].bias))
    torch.testing.assert_close(unit(image.to(memory_format=LAYOUTS[dim])), expected)


def test_without_gradients_a_units_result_is_the_same():
    torch.manual_seed(0)
    unit = conv_unit(3, (16, 16), (3, 3, 3)).to(memory_format=LAYOUTS[3])
    image = torch.randn(2, 16, 6, 7, 8).to(memory_format=LAYOUTS[3])
    before, expected = image.clone(), unit(image)
    with torch.inference_mode():
        assert torch.equal(unit(image), expected)
    assert torch.equal(image, before)
    with torch.no_grad():
        assert torch.equal(unit[0][1](image), unit[0][1].activated(image, 1.0))
    assert torch.equal(image, before)


def test_a_single_voxel_is_refused_as_by_torch():
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        instance_norm(3, 4).train()(torch.randn(2, 4, 1, 1, 1))
