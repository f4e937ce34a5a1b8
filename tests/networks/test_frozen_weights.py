"""Frozen weights, which no checkpoint holds, keep their values in every operation on their module."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from vq.networks.frozen.base import FrozenWeights


class Frozen(FrozenWeights):
    """Has frozen weights of its own and in a submodule, like a network of another package."""

    def __init__(self) -> None:
        super().__init__()
        self.freeze("scale.first", torch.tensor([1 / 3], device="cpu"))
        self.inner = nn.Module()
        self.inner.register_buffer("shift", torch.tensor([2 / 3], device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.get_buffer("scale_first") + self.inner.get_buffer("shift")


@pytest.fixture
def step() -> nn.Module:
    """A module that contains a network with frozen weights, like a training step."""
    return nn.Sequential(nn.Linear(1, 1), Frozen())


def test_to_empty_leaves_them(step: nn.Module) -> None:
    torch.manual_seed(1)
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(1, 1), Frozen())
    empty.to_empty(device="cpu").load_state_dict(step.state_dict())
    assert torch.equal(empty(torch.ones(1)), step(torch.ones(1)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_leaves_them(step: nn.Module, dtype: torch.dtype) -> None:
    frozen = step.to(dtype)[1]  # type: ignore[index]
    assert frozen.scale_first.item() == torch.tensor(1 / 3).item()
    assert frozen.inner.shift.item() == torch.tensor(2 / 3).item()


def test_float64_converts_them(step: nn.Module) -> None:
    assert step.double()[1].scale_first.dtype == torch.float64  # type: ignore[index]


def test_they_are_in_no_state_dict_and_in_every_copy(step: nn.Module) -> None:
    assert set(step.state_dict()) == {"0.weight", "0.bias"}
    for one in (copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
        assert torch.equal(one(torch.ones(1)), step(torch.ones(1)))


def test_content_that_was_moved_to_the_meta_device_is_lost_with_a_word(step: nn.Module) -> None:
    with pytest.raises(RuntimeError, match=r"Frozen: expected frozen weights on a device that stores values"):
        step.to("meta").to_empty(device="cpu")
