"""Sums in a fixed order, and what has none."""

import os

import pytest
import torch

from vq.ops.numerics.determinism import WORKSPACE, NotDeterministicError, deterministic


def test_inside_torch_is_deterministic_and_afterwards_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    with deterministic(is_on=False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert WORKSPACE not in os.environ
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        assert os.environ[WORKSPACE] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert WORKSPACE not in os.environ


def test_an_operation_without_a_fixed_order_is_named() -> None:
    index, values = torch.tensor([0, 0]), torch.tensor([1.0, 2.0])
    with (
        pytest.raises(
            NotDeterministicError, match=r"--deterministic: put_.* deterministic implementation; leave out"
        ),
        deterministic(),
    ):
        torch.zeros(4).put_(index, values)
    with pytest.raises(RuntimeError, match=r"^mine$"), deterministic():
        raise RuntimeError("mine")


def test_a_workspace_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with (
        pytest.raises(
            NotDeterministicError, match=r"CUBLAS_WORKSPACE_CONFIG: expected :4096:8 or :16:8 .*unset it"
        ),
        deterministic(),
    ):
        pass
