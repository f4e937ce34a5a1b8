"""Alternating optimisation: the codes move alone first, and by one gradient however the batch is cut."""

import copy
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from commands import TINY

from vq import config
from vq.engine import AlternatingStep, Constant, ReconstructionStep, assembly
from vq.engine.steps.alternating import codebook_parameters
from vq.errors import ConfigError
from vq.losses import L1Loss
from vq.networks import VQVAEDecoder, VQVAEEncoder
from vq.quantizers import (
    EMACodebook,
    FiniteScalarQuantizer,
    GumbelQuantizer,
    LearnedCodebook,
    NormalInit,
    Quantizer,
    VectorQuantizer,
)
from vq.tokenizers import TwoLevelTokenizer

LEARNED = {
    "type": "vq.quantizers.LearnedCodebook",
    "size": 16,
    "dim": 4,
    "init": {"type": "vq.quantizers.NormalInit"},
}
SGD = {"type": "torch.optim.SGD", "lr": 0.002}


@pytest.fixture
def make(tree: Callable[..., dict[str, Any]]) -> Callable[..., AlternatingStep]:
    def make_one(codebook: dict[str, Any] = LEARNED, lr: float = 0.5, **changes: Any) -> AlternatingStep:
        loaded = tree(tokenizer__quantizer__codebook=codebook, train_step__optimizer=SGD)
        loaded["train_step"] = {
            "type": "AlternatingStep",
            "step": loaded["train_step"],
            "optimizer": {"type": "torch.optim.SGD", "lr": lr},
            **changes,
        }
        tokenizer = assembly.make_tokenizer(loaded, seed=1).train()
        step = assembly.make_step(loaded, tokenizer)
        assert isinstance(step, AlternatingStep)
        return step

    return make_one


def batches(micro_batches: int = 1) -> Any:
    loader = assembly.make_loader(config.load(TINY).to_dict(), "train_data")
    return loader.train_batches(seed=0, micro_batches=micro_batches)


def test_the_loss_of_the_codes_falls_while_the_vectors_stand_still(make: Any) -> None:
    step, batch = make(num_codebook_steps=1), next(batches())
    others = {n: p.clone() for n, p in step.model.named_parameters() if "codebook" not in n}
    vectors = [step._encode(batch)]
    losses = [float(step._update_codes(vectors)) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(p, others[n]) for n, p in step.model.named_parameters() if n in others)


def test_the_wrapped_step_leaves_the_codes_alone(make: Any) -> None:
    step = make(lr=0.0)
    codes = step.quantizer.codebook.vectors.clone()
    weight = (
        step.model.encoder.state_dict()["stem.weight"].clone()
        if hasattr(step.model.encoder, "stem")
        else None
    )
    scalars = step([next(batches())], 0)
    assert torch.equal(step.quantizer.codebook.vectors, codes)
    assert {"loss/codes_alone", "loss/l1", "gradient_norm"} <= set(scalars)
    if weight is not None:
        assert not torch.equal(step.model.encoder.state_dict()["stem.weight"], weight)


def test_micro_batches_move_the_codes_like_one_large_batch(make: Any) -> None:
    large, small = make(num_codebook_steps=3), make(num_codebook_steps=3)
    for step in (large, small):
        step.optimization.weight_ema = None
        step.model.double()  # sums in another order then differ by 1e-16 of their terms
    whole, pieces = batches(), batches(4)
    for i in range(3):
        large([next(whole)], i)
        small(list(islice(pieces, 4)), i)
    torch.testing.assert_close(
        large.quantizer.codebook.vectors, small.quantizer.codebook.vectors, atol=1e-12, rtol=0
    )


def test_the_state_of_both_optimizers_is_kept(make: Any) -> None:
    adam = {"type": "torch.optim.Adam", "lr": 0.01}
    one, other = make(optimizer=adam), make(optimizer=adam)
    group = [next(batches())]
    one(group, 0)
    other.model.load_state_dict(one.model.state_dict())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    one(group, 1)
    other(group, 1)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_codes_that_wait_for_data_do_not_move_before_it(make: Any) -> None:
    step = make(codebook=LEARNED | {"init": {"type": "vq.quantizers.KMeansInit"}})
    assert "loss/codes_alone" not in step([next(batches())], 0)
    assert "loss/codes_alone" in step([next(batches())], 1)


def seen_by(quantizer: torch.nn.Module, act: Callable[[], object]) -> torch.Tensor:
    """What the quantizer's forward gets while something is done."""
    seen: list[torch.Tensor] = []
    handle = quantizer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    act()
    handle.remove()
    (z,) = seen
    return z


@pytest.mark.parametrize("autocast", [False, True])
def test_the_codes_move_to_the_vectors_that_the_step_sees(make: Any, autocast: bool) -> None:
    step, batch = make(), next(batches())
    step.optimization.autocast = autocast
    vectors = step._encode(batch)
    z = seen_by(step.quantizer, lambda: step.step([batch], 0))
    assert z.dtype == (torch.bfloat16 if autocast else torch.float32)
    assert torch.equal(vectors, z.float().flatten(0, -2))


def two_levels(top: Quantizer) -> TwoLevelTokenizer:
    def encoder(halvings: int, channels: int = 3) -> VQVAEEncoder:
        return VQVAEEncoder(width=8, num_blocks=1, block_width=4, num_halvings=halvings, in_channels=channels)

    bottom = VectorQuantizer(codebook=LearnedCodebook(size=8, dim=4, init=NormalInit()))
    return TwoLevelTokenizer(
        bottom_encoder=encoder(2),
        top_encoder=encoder(1, 8),
        top_quantizer=top,
        bottom_quantizer=bottom,
        top_decoder=VQVAEDecoder(width=8, num_blocks=1, block_width=4, num_halvings=1, out_channels=8),
        decoder=VQVAEDecoder(width=8, num_blocks=1, block_width=4, num_halvings=2),
    ).train()


def around(tokenizer: TwoLevelTokenizer) -> AlternatingStep:
    codes = codebook_parameters(tokenizer)
    others = [p for p in tokenizer.parameters() if all(p is not code for code in codes)]
    inner = ReconstructionStep(
        tokenizer=tokenizer,
        losses={"l1": L1Loss()},
        weights={"l1": 1.0, "quantizer": 1.0},
        optimizer=torch.optim.SGD(others, 0.01),
        schedule=Constant(),
    )
    return AlternatingStep(step=inner, optimizer=torch.optim.SGD(codes, 0.1))


@pytest.mark.parametrize(
    "top",
    [
        lambda: VectorQuantizer(codebook=LearnedCodebook(size=8, dim=4, init=NormalInit())),
        lambda: VectorQuantizer(codebook=EMACodebook(size=8, dim=4)),
        lambda: FiniteScalarQuantizer(levels=[4, 4]),
    ],
    ids=["learned", "ema", "fsq"],
)
def test_of_two_levels_the_finer_codes_move_to_the_vectors_that_the_step_sees(
    top: Callable[[], Quantizer],
) -> None:
    step, stream = around(two_levels(top()).double()), batches()
    step([next(stream)], 0)
    batch = next(stream)
    state = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    vectors = step._encode(batch)
    assert all(torch.equal(tensor, state[name]) for name, tensor in step.model.state_dict().items())
    z = seen_by(step.quantizer, lambda: step.step([batch], 1))
    # The codes are the same; in another memory layout a convolution adds them in another order: 1e-16 of float64.
    torch.testing.assert_close(vectors, z.flatten(0, -2), atol=1e-12, rtol=0)
    assert "loss/codes_alone" in step([next(stream)], 2)


def test_a_level_that_draws_and_a_step_without_a_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError, match="GumbelQuantizer, which draws; take another top_quantizer"):
        around(two_levels(GumbelQuantizer(size=8, dim=4)))
    step = around(two_levels(FiniteScalarQuantizer(levels=[4, 4])))
    with pytest.raises(ValueError, match="expected a step that trains a tokenizer, got AlternatingStep"):
        AlternatingStep(step=step, optimizer=torch.optim.SGD(step.optimizer.parameters, 0.1))


def test_what_cannot_alternate_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"learns by gradient.* got VectorQuantizer with EMACodebook"):
        make(codebook={"type": "vq.quantizers.EMACodebook", "size": 16, "dim": 4})
    with pytest.raises(ConfigError, match="num_codebook_steps: expected at least 1, got 0"):
        make(num_codebook_steps=0)
