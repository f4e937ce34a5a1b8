"""Learning rates and averaged weights, against the formulas."""

import logging
import math
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import nn

from vq.engine import (
    Constant,
    Schedule,
    WarmupCosine,
    WarmupLinear,
    WarmupStableDecay,
    WarmupStepDrop,
    WeightEMA,
)
from vq.quantizers import (
    BottleneckQuantizer,
    EMACodebook,
    LearnedCodebook,
    NormalInit,
    ReplaceDeadCodes,
    ResidualQuantizer,
    VectorQuantizer,
)


def test_warmup_cosine_equals_the_formula() -> None:
    schedule = WarmupCosine(total_steps=100, warmup_steps=10, final_factor=0.1)
    for step in range(120):
        if step < 10:
            expected = (step + 1) / 10
        else:
            t = min(1, (step - 10) / 90)
            expected = 0.1 + 0.9 * (1 + math.cos(math.pi * t)) / 2
        assert schedule.factor(step) == pytest.approx(expected, abs=1e-12)


def test_warmup_linear_equals_the_formula() -> None:
    schedule = WarmupLinear(total_steps=100, warmup_steps=10, final_factor=0.1)
    for step in range(120):
        expected = (step + 1) / 10 if step < 10 else max(0.1, 1 - 0.9 * (step - 10) / 90)
        assert schedule.factor(step) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", ["linear", "sqrt"])
def test_warmup_stable_decay_equals_the_formula(shape: str) -> None:
    schedule = WarmupStableDecay(
        total_steps=100, warmup_steps=10, decay_steps=20, shape=shape, final_factor=0.1
    )
    for step in range(120):
        if step < 10:
            expected = (step + 1) / 10
        elif step < 80:
            expected = 1
        else:
            x = min(1, (step - 80) / 20)
            expected = 0.1 + 0.9 * (1 - (x if shape == "linear" else x**0.5))
        assert schedule.factor(step) == pytest.approx(expected, abs=1e-12)


def test_before_its_decline_a_rate_does_not_depend_on_the_length_of_the_run() -> None:
    long, short = (WarmupStableDecay(total_steps=n, warmup_steps=5, decay_steps=10) for n in (60, 40))
    assert [long.factor(step) for step in range(31)] == [short.factor(step) for step in range(31)]
    assert long.factor(31) > short.factor(31)


def test_warmup_step_drop_equals_the_formula() -> None:
    schedule = WarmupStepDrop(total_steps=100, drops=[40, 70], drop_factor=0.2, warmup_steps=10)
    for step in range(120):
        expected = (step + 1) / 10 if step < 10 else 0.2 ** (int(step >= 40) + int(step >= 70))
        assert schedule.factor(step) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", [WarmupCosine, WarmupLinear])
@pytest.mark.parametrize("total_steps", [1, 3, 5])
def test_a_run_within_its_warm_up_goes_along_it_and_says_so(
    total_steps: int, kind: Callable[..., Schedule], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        schedule = kind(total_steps=total_steps, warmup_steps=5)
    (record,) = caplog.records
    assert f"ends at step {total_steps}, within its warm-up of 5 steps" in record.getMessage()
    assert [schedule.factor(step) for step in range(7)] == [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 1, 1]


def test_impossible_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="warmup_steps: expected at least 0, got -1"):
        WarmupCosine(total_steps=5, warmup_steps=-1)
    with pytest.raises(ValueError, match="warmup_steps: expected at least 0, got -1"):
        Constant(warmup_steps=-1)
    with pytest.raises(ValueError, match="total_steps: expected at least 1, got 0"):
        WarmupCosine(total_steps=0)
    with pytest.raises(ValueError, match="total_steps: expected at least 1, got 0"):
        WarmupLinear(total_steps=0)
    with pytest.raises(
        ValueError, match=r"expected .* to fit into a run of 100 steps, got 50 \+ 51; shorten"
    ):
        WarmupStableDecay(total_steps=100, warmup_steps=50, decay_steps=51)
    WarmupStableDecay(total_steps=100, warmup_steps=50, decay_steps=50)
    with pytest.raises(ValueError, match=r"decay_steps: expected at least 1, got 0; .* take Constant"):
        WarmupStableDecay(total_steps=100, decay_steps=0)
    with pytest.raises(ValueError, match=r"shape: expected one of \['linear', 'sqrt'\], got 'square'"):
        WarmupStableDecay(total_steps=100, decay_steps=1, shape="square")


def test_impossible_drops_are_refused() -> None:
    WarmupStepDrop(total_steps=51, drops=[10, 50], warmup_steps=10)
    with pytest.raises(
        ValueError, match=r"drops: expected steps before the end of the run at step 50, got \[10, 50\]"
    ):
        WarmupStepDrop(total_steps=50, drops=[10, 50])
    for drops, warmup_steps, first in (
        ([9], 10, 10),
        ([20, 10], 0, 1),
        ([10, 10], 0, 1),
        ([0], 0, 1),
        ([], 0, 1),
    ):
        with pytest.raises(ValueError, match=f"drops: expected ascending steps from {first} on"):
            WarmupStepDrop(total_steps=50, drops=drops, warmup_steps=warmup_steps)
    for factor in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"drop_factor: expected a number in \(0, 1\)"):
            WarmupStepDrop(total_steps=50, drops=[10], drop_factor=factor)


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
        # Six steps in float64, of which each rounds a few times: values of about 1, spacing 2e-16.
        torch.testing.assert_close(ema.average[name], tensor, atol=1e-12, rtol=1e-12)
    assert torch.equal(ema.average["1.running_mean"], module[1].running_mean)  # buffers are copied
    raw = {n: t.clone() for n, t in module.state_dict().items()}
    with suppress(KeyError), ema.applied():
        assert torch.equal(module[0].weight, ema.average["0.weight"])
        raise KeyError  # the raw weights come back whatever happens
    assert all(torch.equal(t, raw[n]) for n, t in module.state_dict().items())
    with pytest.raises(ValueError, match="expected a decay in"):
        WeightEMA(module, decay=1.0)


def tied() -> nn.Module:
    """One table under two names, one of them inside of a list."""
    module = nn.Module()
    module.table, module.last = nn.Embedding(4, 3).double(), nn.Linear(3, 4, bias=False).double()
    module.last.weight = module.table.weight
    return module


def shared_codebook() -> nn.Module:
    book = LearnedCodebook(size=4, dim=2, init=NormalInit(), revival=ReplaceDeadCodes())
    return ResidualQuantizer(quantizers=[VectorQuantizer(codebook=book)], depth=3).double()


def shared_projections() -> nn.Module:
    inner = VectorQuantizer(codebook=EMACodebook(size=4, dim=2))
    return nn.ModuleList([BottleneckQuantizer(quantizer=inner, dim=3)] * 2).double()


@pytest.mark.parametrize("make", [tied, shared_codebook, shared_projections])
def test_a_tensor_with_several_names_is_averaged_once_and_stands_under_all(
    make: Callable[[], nn.Module],
) -> None:
    module = make()
    ema = WeightEMA(module, decay=0.5)
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    assert max(map(len, names.values())) > 1
    expected = {n: p.detach().clone() for n, p in module.named_parameters()}
    for t in range(5):
        for p in module.parameters():
            p.data.add_(torch.randn_like(p))
        ema.update()
        decay = min(0.5, (1 + t) / (10 + t))
        expected = {n: decay * expected[n] + (1 - decay) * p.detach() for n, p in module.named_parameters()}
    for first, *others in names.values():
        torch.testing.assert_close(ema.average[first], expected[first], atol=1e-12, rtol=1e-12)
        assert all(torch.equal(ema.average[other], ema.average[first]) for other in others)
        with ema.applied():
            assert torch.equal(module.get_parameter(first), ema.average[first])
    again = WeightEMA(make(), decay=0.5)
    again.load_state_dict(ema.state_dict())
    again.load_average({name: tensor.clone() for name, tensor in ema.average.items()})
    assert again.num_updates == 5
    assert all(torch.equal(again.average[name], tensor) for name, tensor in ema.average.items())


def test_an_average_that_cannot_be_loaded_leaves_the_weights() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    ema = WeightEMA(module, decay=0.5)
    before = {n: t.clone() for n, t in module.state_dict().items()}
    for tensor in ema.average.values():
        tensor.add_(1)
    ema.average["1.bias"] = torch.zeros(7)
    with pytest.raises(RuntimeError, match="size mismatch"), ema.applied():
        pass
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
