"""Alternating optimisation: the codes move alone first, and by one gradient however the batch is cut."""

import copy
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from commands import TINY

from vq import config
from vq.engine import AlternatingStep, assemble
from vq.registry import ConfigError

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
        tokenizer = assemble.make_tokenizer(loaded, seed=1).train()
        step = assemble.make_step(loaded, tokenizer)
        assert isinstance(step, AlternatingStep)
        return step

    return make_one


def batches(micro_batches: int = 1) -> Any:
    loader = assemble.make_loader(config.load(TINY).to_dict(), "train_data")
    return loader.train_batches(seed=0, micro_batches=micro_batches)


def test_the_loss_of_the_codes_falls_while_the_vectors_stand_still(make: Any) -> None:
    step, batch = make(num_codebook_steps=1), next(batches())
    others = {n: p.clone() for n, p in step.model.named_parameters() if "codebook" not in n}
    vectors = [step._encode(batch)]
    losses = [float(step._move_codes(vectors)) for _ in range(20)]
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
    whole, pieces = batches(), batches(4)
    for i in range(3):
        large([next(whole)], i)
        small(list(islice(pieces, 4)), i)
    torch.testing.assert_close(
        large.quantizer.codebook.vectors, small.quantizer.codebook.vectors, atol=1e-6, rtol=0
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


def test_what_cannot_alternate_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"optimizer got an empty parameter list"):
        make(codebook={"type": "vq.quantizers.EMACodebook", "size": 16, "dim": 4})
    with pytest.raises(ConfigError, match="num_codebook_steps: expected at least 1, got 0"):
        make(num_codebook_steps=0)
