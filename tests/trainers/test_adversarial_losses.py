"""The two sides of adversarial training against logarithms written out."""

from __future__ import annotations

import math

import pytest
import torch

from autoseg.trainers.losses.adversarial import discriminator_loss, generator_loss

REAL = torch.tensor([[2.0, -1.0], [0.5, 0.0]])
FAKE = torch.tensor([[-3.0, 1.0], [0.0, 4.0]])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_the_generator_minimises_minus_the_log_of_being_taken_for_real():
    expected = sum(-math.log(sigmoid(value)) for value in FAKE.flatten().tolist()) / 4
    assert generator_loss(FAKE).item() == pytest.approx(expected, rel=1e-6)


def test_the_discriminator_minimises_binary_cross_entropy_of_both():
    real = sum(-math.log(sigmoid(value)) for value in REAL.flatten().tolist()) / 4
    fake = sum(-math.log(1 - sigmoid(value)) for value in FAKE.flatten().tolist()) / 4
    assert discriminator_loss(REAL, FAKE).item() == pytest.approx(real + fake, rel=1e-6)


def test_who_knows_nothing_pays_log_two():
    nothing = torch.zeros(3, 1, 2, 2)
    assert generator_loss(nothing).item() == pytest.approx(math.log(2))
    assert discriminator_loss(nothing, nothing).item() == pytest.approx(2 * math.log(2))


def test_a_generator_that_deceives_nobody_has_the_full_gradient():
    fake = torch.full((4,), -1e4, requires_grad=True)
    loss = generator_loss(fake)
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert fake.grad.tolist() == [-0.25] * 4


def test_half_precision_is_computed_in_float32():
    assert generator_loss(FAKE.bfloat16()).dtype == torch.float32
    assert discriminator_loss(REAL.bfloat16(), FAKE.bfloat16()) == discriminator_loss(REAL, FAKE)
