"""Adam and AdamW are fused on a CUDA device, unless the arguments of the optimizer say otherwise."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from gpu.devices import CUDA
from torch import Tensor, nn

from vq.engine.steps import optimization
from vq.engine.steps.optimization import ScheduledOptimizer

ADAMS = [torch.optim.Adam, torch.optim.AdamW]


@pytest.fixture
def _fuses_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a GPU, the CPU takes its place: PyTorch has fused kernels for both."""
    monkeypatch.setattr(optimization, "FUSED_ON", request.getfixturevalue("device"))


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def layer(device: str) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 3).to(device)


def made(kind: Any, device: str, **arguments: Any) -> ScheduledOptimizer:
    return ScheduledOptimizer(list(layer(device).parameters()), optimizer=partial(kind, lr=0.1, **arguments))


def flags(optimizer: ScheduledOptimizer) -> list[Any]:
    return [group.get("fused") for group in optimizer.inner.param_groups]


def trained(optimizer: ScheduledOptimizer, steps: int) -> list[Tensor]:
    for step in range(steps):
        optimizer.prepare(step)
        for number, parameter in enumerate(optimizer.parameters):
            parameter.grad = torch.cos(parameter.detach() * (number + step + 1))
        optimizer.step()
    return [parameter.detach().clone() for parameter in optimizer.parameters]


@pytest.mark.parametrize("kind", ADAMS)
def test_the_cpu_is_not_fused(kind: Any) -> None:
    assert flags(made(kind, "cpu")) == [None]


@pytest.mark.usefixtures("_fuses_here")
class TestWhereItFuses:
    @pytest.mark.parametrize("kind", ADAMS)
    def test_weights_differ_by_rounding(self, kind: Any, device: str) -> None:
        fused, plain = made(kind, device), made(kind, device, fused=False)
        assert (flags(fused), flags(plain)) == ([True], [False])
        for a, b in zip(trained(fused, 4), trained(plain, 4), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        "given", [{"fused": False}, {"foreach": True}, {"foreach": False}, {"differentiable": True}]
    )
    def test_an_argument_decides(self, given: dict[str, bool], device: str) -> None:
        assert flags(made(torch.optim.AdamW, device, **given)) == [given.get("fused")]

    def test_other_optimizers_stay_as_they_are(self, device: str) -> None:
        class Own(torch.optim.Adam):
            """May compute its step in another way."""

        assert flags(made(torch.optim.SGD, device)) == [None]
        assert flags(made(Own, device)) == [None]

    def test_one_parameter_elsewhere_decides_for_all(self, device: str) -> None:
        groups = [
            {"params": [nn.Parameter(torch.ones(2, device=where))], "lr": 0.1} for where in (device, "meta")
        ]
        assert flags(ScheduledOptimizer(groups, optimizer=torch.optim.Adam)) == [None, None]

    @pytest.mark.parametrize("saved_fused", [False, True])
    def test_a_state_continues_with_and_without(self, saved_fused: bool, device: str) -> None:
        saved = made(torch.optim.AdamW, device, fused=saved_fused)
        trained(saved, 3)
        others = [made(torch.optim.AdamW, device), made(torch.optim.AdamW, device, fused=False)]
        for other in others:
            for mine, its in zip(other.parameters, saved.parameters, strict=True):
                mine.data.copy_(its.data)
            other.load_state_dict(copy.deepcopy(saved.state_dict()))
        assert [flags(other) for other in others] == [[True], [False]]
        expected = trained(saved, 1)
        for other in others:
            for a, b in zip(trained(other, 1), expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
