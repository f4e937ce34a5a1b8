"""Samples in float32 on a device agree with those in float64 on a CPU, but for draws that rounding decides."""

import copy
from collections.abc import Callable

import pytest
import torch
from contract.network_cases import GENERATORS
from gpu.devices import CPU_AND_CUDA

from vq.generators import Generator

LARGEST_CHANGE = 1e-3
"""Of a logit, relative to the largest one."""
LEAST_EQUAL = 0.9
"""Share of the images whose indices must all be equal; a later index depends on those before it."""
IMAGES = 32


@pytest.mark.parametrize("device", CPU_AND_CUDA)
@pytest.mark.parametrize("make", GENERATORS.values(), ids=list(GENERATORS))
def test_samples_and_logits(make: Callable[[], Generator], device: str) -> None:
    torch.manual_seed(0)
    exact = make().eval()
    given = copy.deepcopy(exact).to(device)
    exact.double()
    label = torch.arange(IMAGES) % exact.num_classes
    settings = {"guidance": 2.0, "top_k": max(2, exact.vocabulary_size // 2), "top_p": 0.95}
    seeds = torch.arange(IMAGES)
    wanted = exact.generate(label, seeds=seeds, **settings)
    found = given.generate(label.to(device), seeds=seeds, **settings)
    assert found.device.type == device
    equal = (found.cpu() == wanted).flatten(1).all(dim=1).double().mean()
    assert equal >= LEAST_EQUAL

    torch.manual_seed(1)
    logits = exact(wanted, label).logits
    torch.manual_seed(1)
    change = (given(wanted.to(device), label.to(device)).logits.cpu() - logits).abs().max()
    assert change <= LARGEST_CHANGE * logits.abs().max()
