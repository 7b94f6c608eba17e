"""Optimisers get the numbers of the options, and take the step of the formula."""

from __future__ import annotations

import pytest
import torch

from autoseg.schema.training_options import TrainingOptions
from autoseg.trainers.optimizers import OPTIMIZERS, build_optimizer

OPTIONS = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([2.0]))


def take_steps(optimizer: torch.optim.Optimizer, one: torch.nn.Parameter, gradients: list[float]) -> float:
    for gradient in gradients:
        one.grad = torch.tensor([gradient])
        optimizer.step()
    return one.item()


def test_sgd_takes_nesterov_steps_with_l2_decay():
    one, expected, velocity = weight(), 2.0, 0.0
    for gradient in (1.0, -0.5, 0.25):
        decayed = gradient + 0.01 * expected
        velocity = 0.9 * velocity + decayed
        expected -= 0.1 * (decayed + 0.9 * velocity)
    found = take_steps(build_optimizer([one], TrainingOptions(optimizer="sgd", **OPTIONS)), one, [1.0, -0.5, 0.25])
    assert found == pytest.approx(expected, rel=1e-6)


def test_sgd_without_momentum_is_plain():
    one = weight()
    options = TrainingOptions(optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.0)
    assert take_steps(build_optimizer([one], options), one, [1.0, 1.0]) == pytest.approx(1.8)


def test_adamw_decays_weights_apart_from_the_gradient():
    one = weight()
    # The first step of Adam has the length of the learning rate whatever the gradient is.
    found = take_steps(build_optimizer([one], TrainingOptions(optimizer="adamw", **OPTIONS)), one, [123.0])
    assert found == pytest.approx(2.0 * (1 - 0.1 * 0.01) - 0.1, rel=1e-6)


def test_adam_with_decay_adds_it_to_the_gradient():
    one = weight()
    options = TrainingOptions(optimizer="adam", learning_rate=0.1, weight_decay=0.5)
    assert take_steps(build_optimizer([one], options), one, [-1.0]) == pytest.approx(2.0), "decay and gradient cancel"


def test_rmsprop_divides_by_the_root_of_the_mean_square():
    one, expected, square = weight(), 2.0, 0.0
    for gradient in (1.0, -0.5):
        square = 0.99 * square + 0.01 * gradient**2
        expected -= 0.1 * gradient / (square**0.5 + 1e-8)
    options = TrainingOptions(optimizer="rmsprop", learning_rate=0.1, weight_decay=0.0)
    assert take_steps(build_optimizer([one], options), one, [1.0, -0.5]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_starts_with_the_learning_rate_asked_for(name):
    optimizer = build_optimizer([weight()], TrainingOptions(optimizer=name, **OPTIONS))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_finds_the_bottom_of_a_bowl(name):
    one = weight()
    optimizer = build_optimizer([one], TrainingOptions(optimizer=name, **OPTIONS))
    for _ in range(200):
        optimizer.zero_grad()
        (one**2).sum().backward()
        optimizer.step()
    assert abs(one.item()) < 0.1


def test_wrong_options_are_refused_with_what_was_expected():
    with pytest.raises(ValueError, match="optimizer: expected one of adam, adamw, rmsprop, sgd, got 'adan'. Did you mean 'adam'"):
        build_optimizer([weight()], TrainingOptions(optimizer="adan"))
    with pytest.raises(ValueError, match="learning_rate: expected a positive number, got 0"):
        TrainingOptions(learning_rate=0)
    with pytest.raises(ValueError, match="foreground"):
        TrainingOptions(foreground=1.5)
    with pytest.raises(ValueError, match="average_decay"):
        TrainingOptions(average_decay=1.0)
