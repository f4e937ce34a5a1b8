"""Learning rates and averaged weights, against the formulas."""

import math
from contextlib import suppress

import pytest
import torch
from torch import nn

from vq.engine import Constant, WarmupCosine, WeightEMA


def test_warmup_cosine_equals_the_formula() -> None:
    schedule = WarmupCosine(total_steps=100, warmup_steps=10, final_factor=0.1)
    for step in range(120):
        if step < 10:
            expected = (step + 1) / 10
        else:
            t = min(1, (step - 10) / 90)
            expected = 0.1 + 0.9 * (1 + math.cos(math.pi * t)) / 2
        assert schedule.factor(step) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="warmup_steps: expected fewer than total_steps=5"):
        WarmupCosine(total_steps=5, warmup_steps=5)


def test_constant_has_a_warmup() -> None:
    assert [Constant(warmup_steps=4).factor(s) for s in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1, 1, 1]
    assert Constant().factor(0) == 1


def test_weight_ema_equals_the_recursion_and_swaps_both_ways() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    ema = WeightEMA(module, decay=0.5)
    expected = {n: p.detach().clone() for n, p in module.named_parameters()}
    for t in range(6):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn_like(p))
            module[1].running_mean.add_(1)
        ema.update()
        decay = min(0.5, (1 + t) / (10 + t))
        expected = {n: decay * expected[n] + (1 - decay) * p.detach() for n, p in module.named_parameters()}
    for name, tensor in expected.items():
        torch.testing.assert_close(ema.average[name], tensor, atol=1e-12, rtol=1e-12)
    assert torch.equal(ema.average["1.running_mean"], module[1].running_mean)  # buffers are copied
    raw = {n: t.clone() for n, t in module.state_dict().items()}
    with suppress(KeyError), ema.applied():
        assert torch.equal(module[0].weight, ema.average["0.weight"])
        raise KeyError  # the raw weights come back whatever happens
    assert all(torch.equal(t, raw[n]) for n, t in module.state_dict().items())
    with pytest.raises(ValueError, match="expected a decay in"):
        WeightEMA(module, decay=1.0)
