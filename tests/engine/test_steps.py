"""One optimizer step: its sum of losses, its micro-batches, its one forward."""

from collections.abc import Callable, Iterator
from itertools import islice

import pytest
import torch
from commands import TINY

from vq import config
from vq.data import Batch
from vq.engine import ReconstructionStep, assembly
from vq.engine.steps.checks import check_annealing
from vq.errors import ConfigError
from vq.quantizers import GumbelQuantizer, LinearAnnealing

Make = Callable[..., ReconstructionStep]
SGD = {
    "type": "torch.optim.SGD",
    "lr": 0.002,
}  # small: training multiplies rounding, threefold a step at 0.05


def batches(micro_batches: int = 1) -> Iterator[Batch]:
    loader = assembly.make_loader(config.load(TINY).to_dict(), "train_data")
    return loader.train_batches(seed=0, micro_batches=micro_batches)


def test_scalars_are_the_weighted_sum_and_the_gradient_norm(make_step: Make) -> None:
    step = make_step(train_step__weights={"l1": 0.5, "quantizer": 2.0}, train_step__max_gradient_norm=0.01)
    before = {n: p.detach().clone() for n, p in step.tokenizer.named_parameters()}
    scalars = step([next(batches())], 0)
    assert not any(value.requires_grad for value in scalars.values())
    total = 0.5 * scalars["loss/l1"] + 2.0 * scalars["loss/quantizer"]
    torch.testing.assert_close(scalars["loss/total"], total)
    norm = torch.stack([p.grad.norm() for p in step.tokenizer.parameters() if p.grad is not None]).norm()
    assert norm <= 0.01 * 1.001 < scalars["gradient_norm"]  # clipped; the scalar is the norm before
    assert scalars["learning_rate"] == pytest.approx(1e-3 / 2)  # the first of two warm-up steps
    assert any(not torch.equal(before[n], p) for n, p in step.tokenizer.named_parameters())


def test_micro_batches_equal_one_large_batch(make_step: Make) -> None:
    normal = {"type": "vq.quantizers.NormalInit"}
    shared = {"train_step__optimizer": SGD, "tokenizer__quantizer__codebook__init": normal}
    large, small = make_step(**shared), make_step(**shared)
    for step in (large, small):
        step.optimization.weight_ema = None
        step.model.double()  # sums in another order then differ by 1e-16 of their terms
    whole, pieces = batches(), batches(4)
    for i in range(6):
        one = large([next(whole)], i)
        many = small(list(islice(pieces, 4)), i)
        torch.testing.assert_close(one["loss/l1"], many["loss/l1"], atol=1e-11, rtol=0)
    for (name, a), b in zip(
        large.tokenizer.state_dict().items(), small.tokenizer.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_the_tokenizer_runs_forward_once_a_batch(make_step: Make) -> None:
    step = make_step()
    calls = []
    step.tokenizer.quantizer.register_forward_hook(lambda *_: calls.append(1))
    step([next(batches())], 0)
    assert len(calls) == 1


def test_autocast_keeps_the_quantizer_and_the_losses_in_float32(make_step: Make) -> None:
    step = make_step()
    step.optimization.autocast = True
    seen: dict[str, torch.dtype] = {}
    step.tokenizer.encoder.register_forward_hook(lambda m, i, o: seen.update(encoder=o.dtype))
    step.losses["l1"].register_forward_hook(lambda m, i, o: seen.update(l1=i[0].dtype))
    step([next(batches())], 0)
    assert seen == {"encoder": torch.bfloat16, "l1": torch.float32}
    assert step.tokenizer.quantizer.codebook.vectors.dtype == torch.float32


def test_a_loss_without_a_weight_is_refused(make_step: Make) -> None:
    with pytest.raises(
        ConfigError, match=r"weights: expected one for each of \['l1', 'quantizer'\], got \['l1'\]"
    ):
        make_step(train_step__weights={"l1": 1.0})


def test_annealing_sets_the_quantizer_s_numbers_by_step(make_step: Make) -> None:
    gumbel = {"type": "vq.quantizers.GumbelQuantizer", "size": 16, "dim": 4}
    line = {"type": "LinearAnnealing", "first": 2.0, "last": 1.0, "steps": 4}
    step = make_step(tokenizer__quantizer=gumbel, train_step__annealing={"temperature": line})
    step([next(batches())], 2)
    assert step.tokenizer.quantizer.temperature == 1.5
    with pytest.raises(ConfigError, match="annealing: GumbelQuantizer has no number 'tau' to change"):
        make_step(tokenizer__quantizer=gumbel, train_step__annealing={"tau": line})


@pytest.mark.parametrize(("name", "value"), [("temperature", 1), ("kl_weight", 0), ("kl_weight", 0.5)])
def test_any_real_number_can_be_annealed(name: str, value: float) -> None:
    quantizer = GumbelQuantizer(size=8, dim=4)
    setattr(quantizer, name, value)
    check_annealing(quantizer, {name: LinearAnnealing(first=1.0, last=0.0, steps=3)})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("is_hard", "has no number 'is_hard'"),
        ("codebook_size", "'codebook_size' of GumbelQuantizer is a whole number"),
        ("to_logits", "has no number 'to_logits'"),
    ],
)
def test_what_is_no_quantity_is_not_annealed(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_annealing(GumbelQuantizer(size=8, dim=4), {name: LinearAnnealing(first=1.0, last=0.0, steps=3)})
