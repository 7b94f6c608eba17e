"""Optimisers get the numbers of the options, and take the step of the formula."""

from __future__ import annotations

import pytest
import torch

from autoseg.schema import Budget
from autoseg.schema.training_options import TrainingOptions
from autoseg.trainers.optimizers import OPTIMIZERS, build_optimizer
from autoseg.trainers.run_options import default_options

OPTIONS = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([2.0]))


def take_steps(name: str, *gradients: float, **options: float) -> float:
    """A weight of 2 after steps of an optimiser."""
    one = weight()
    optimizer = build_optimizer([one], TrainingOptions(optimizer=name, **OPTIONS | options))
    for gradient in gradients:
        one.grad = torch.tensor([gradient])
        optimizer.step()
    return one.item()


def test_sgd_takes_nesterov_steps_with_l2_decay():
    expected, velocity = 2.0, 0.0
    for gradient in (1.0, -0.5, 0.25):
        decayed = gradient + 0.01 * expected
        velocity = 0.9 * velocity + decayed
        expected -= 0.1 * (decayed + 0.9 * velocity)
    assert take_steps("sgd", 1.0, -0.5, 0.25) == pytest.approx(expected, rel=1e-6)
    assert take_steps("sgd", 1.0, 1.0, momentum=0.0, weight_decay=0.0) == pytest.approx(1.8)


def test_adamw_decays_weights_apart_from_the_gradient_and_adam_adds_decay_to_it():
    # The first step of Adam has the length of the learning rate whatever the gradient is.
    assert take_steps("adamw", 123.0) == pytest.approx(2.0 * (1 - 0.1 * 0.01) - 0.1, rel=1e-6)
    assert take_steps("adam", -1.0, weight_decay=0.5) == pytest.approx(2.0), "decay and gradient cancel"


def test_rmsprop_divides_by_the_root_of_the_mean_square():
    expected, square = 2.0, 0.0
    for gradient in (1.0, -0.5):
        square = 0.99 * square + 0.01 * gradient**2
        expected -= 0.1 * gradient / (square**0.5 + 1e-8)
    assert take_steps("rmsprop", 1.0, -0.5, weight_decay=0.0, momentum=0.0) == pytest.approx(expected, rel=1e-5)


def test_rmsprop_has_momentum_where_it_is_asked_for():
    expected, square, velocity = 2.0, 0.0, 0.0
    for gradient in (1.0, -0.5):
        square = 0.99 * square + 0.01 * gradient**2
        velocity = 0.9 * velocity + gradient / (square**0.5 + 1e-8)
        expected -= 0.1 * velocity
    assert take_steps("rmsprop", 1.0, -0.5, weight_decay=0.0) == pytest.approx(expected, rel=1e-5)


def resolved(**changes: object) -> TrainingOptions:
    return default_options(Budget("time", 60.0, 4), "cpu", batch=2, changes=changes)


def test_what_is_recorded_of_momentum_is_what_is_used():
    assert resolved(optimizer="rmsprop").momentum == 0
    assert resolved(optimizer="rmsprop", momentum=0.9).momentum == 0.9
    assert resolved(optimizer="sgd").momentum == 0.99
    assert resolved(momentum=0).optimizer == "adamw", "the default of a short run; none is none"
    for changes, name in (({}, "adamw"), ({"optimizer": "adam"}, "adam")):
        with pytest.raises(ValueError, match=f"momentum: {name}, the optimiser of this run, has none, got 0.9; add --training-option"):
            resolved(momentum=0.9, **changes)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_starts_with_the_learning_rate_and_finds_the_bottom_of_a_bowl(name):
    one = weight()
    optimizer = build_optimizer([one], TrainingOptions(optimizer=name, **OPTIONS))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]
    for _ in range(200):
        optimizer.zero_grad()
        (one**2).sum().backward()
        optimizer.step()
    assert abs(one.item()) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adan"}, "optimizer: .* got 'adan'. Did you mean 'adam'"),
        ({"learning_rate": 0}, "learning_rate: .* got 0"),
        ({"foreground": 1.5}, "foreground"),
        ({"average_decay": 1.0}, "average_decay"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer([weight()], TrainingOptions(**options))


@pytest.mark.parametrize("name", ["sgd", "adamw", "adam"])
def test_steps_in_one_pass_are_those_of_the_plain_formula(name):
    options = TrainingOptions(optimizer=name, learning_rate=0.01, momentum=0.9, weight_decay=0.01)
    weights = [torch.randn(7, 5), torch.randn(3), torch.randn(4)]
    ours, plain = ([torch.nn.Parameter(one.clone()) for one in weights] for _ in range(2))
    one, other = build_optimizer(ours, options), build_optimizer(plain, options)
    other.param_groups[0]["fused"] = False
    assert one.param_groups[0]["fused"] is True
    for step in range(4):
        for index, (a, b) in enumerate(zip(ours, plain, strict=True)):
            # The last learns in some steps only, as the parts of some networks do.
            a.grad = b.grad = None if index == 2 and step in (0, 2) else torch.randn_like(a)
        one.step()
        other.step()
    torch.testing.assert_close(ours, plain)
