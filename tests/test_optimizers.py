"""LARS against the equations of its paper, in float64, and its state through a checkpoint."""

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from vq.engine.steps.optimization import ScheduledOptimizer
from vq.engine.steps.optimizer_state import optimizer_state, restore_optimizer
from vq.optimizers import LARS

LR, MOMENTUM, DECAY, TRUST = 0.8, 0.9, 0.01, 0.02


def norm(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values))


def plain_lars(
    weights: list[float], gradients: list[list[float]], rates: list[float], *, is_scaled: bool
) -> list[float]:
    """Algorithm 1 of You et al. 2017 for one layer, number by number."""
    velocity = [0.0] * len(weights)
    for gradient, rate in zip(gradients, rates, strict=True):
        local, decay = 1.0, 0.0
        if is_scaled:
            local, decay = TRUST * norm(weights) / (norm(gradient) + DECAY * norm(weights)), DECAY
        for i, (w, g) in enumerate(zip(weights, gradient, strict=True)):
            velocity[i] = MOMENTUM * velocity[i] + rate * local * (g + decay * w)
        weights = [w - v for w, v in zip(weights, velocity, strict=True)]
    return weights


@pytest.mark.parametrize("scales_vectors", [False, True])
def test_it_is_the_algorithm_of_the_paper(scales_vectors: bool) -> None:
    torch.manual_seed(0)
    matrix, vector = (nn.Parameter(torch.randn(*shape, dtype=torch.float64)) for shape in ((3, 4), (5,)))
    starts = [p.detach().clone().flatten().tolist() for p in (matrix, vector)]
    optimizer = LARS(
        [matrix, vector],
        lr=LR,
        momentum=MOMENTUM,
        weight_decay=DECAY,
        trust=TRUST,
        scales_vectors=scales_vectors,
    )
    gradients = [[torch.randn_like(p) for p in (matrix, vector)] for _ in range(5)]
    rates = [LR * 0.9**i for i in range(5)]  # of a schedule
    for some, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        matrix.grad, vector.grad = (g.clone() for g in some)
        optimizer.step()
    for i, (parameter, is_scaled) in enumerate([(matrix, True), (vector, scales_vectors)]):
        listed = [some[i].flatten().tolist() for some in gradients]
        expected = plain_lars(starts[i], listed, rates, is_scaled=is_scaled)
        torch.testing.assert_close(
            parameter.detach().flatten(), torch.tensor(expected, dtype=torch.float64), atol=0, rtol=1e-12
        )


def test_the_step_of_a_matrix_does_not_depend_on_the_size_of_its_gradient() -> None:
    ends = []
    for factor in (1.0, 1e6):
        weight = nn.Parameter(torch.eye(3, dtype=torch.float64))
        weight.grad = factor * torch.ones(3, 3, dtype=torch.float64)
        LARS([weight], lr=1.0).step()
        ends.append(weight.detach())
    torch.testing.assert_close(ends[0], ends[1], atol=0, rtol=1e-12)


def test_weights_of_zero_move_and_parameters_without_gradient_stay() -> None:
    weight, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    LARS([weight, still], lr=0.5).step()
    assert torch.equal(weight.detach(), torch.full((2, 2), -0.5))
    assert torch.equal(still.detach(), torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)  # 0 / 0 in the local rate of a layer that has converged
    LARS([weight], lr=0.5).step()
    assert weight.isfinite().all()


def test_a_run_that_continues_from_its_state_equals_an_unbroken_one() -> None:
    def steps(layer: nn.Module, optimizer: ScheduledOptimizer, first: int, last: int) -> None:
        for step in range(first, last):
            optimizer.prepare(step)
            layer(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()

    make = partial(LARS, lr=0.5, weight_decay=0.1)
    torch.manual_seed(0)
    unbroken, second = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = ScheduledOptimizer(list(unbroken.parameters()), optimizer=make)
    steps(unbroken, optimizer, 0, 3)
    second.load_state_dict(unbroken.state_dict())
    continued = ScheduledOptimizer(list(second.parameters()), optimizer=make)
    restore_optimizer(continued.inner, copy.deepcopy(optimizer_state(optimizer.inner)))
    steps(unbroken, optimizer, 3, 6)
    steps(second, continued, 3, 6)
    for a, b in zip(unbroken.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"weight_decay": -1.0}, {"trust": 0.0}, {"momentum": 1.0}, {"lr": math.nan}]
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="LARS: expected lr and weight_decay of at least 0"):
        LARS([nn.Parameter(torch.ones(1))], **({"lr": 1.0} | wrong))
