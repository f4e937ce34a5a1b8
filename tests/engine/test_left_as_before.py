"""What an exception leaves behind: modes, weights, counting codebooks, seeds and autocast are as they were before."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from commands import TINY
from torch import nn

from vq import config
from vq.engine import Evaluator, ReconstructionStep, assembly
from vq.engine.evaluation.evaluator import draw_pictures
from vq.generators import DecoderTransformer, LlamaStyle, TransformerGenerator
from vq.layers.modes import evaluating
from vq.quantizers import Codebook, accumulate

Make = Callable[..., ReconstructionStep]


class BrokenError(Exception):
    """Raised on purpose."""


def fail(*_: Any) -> None:
    raise BrokenError


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def batch() -> Any:
    return next(assembly.make_loader(config.load(TINY).to_dict(), "train_data").train_batches(seed=0))


def test_parts_keep_the_modes_that_they_had() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
    before = modes(model)
    with pytest.raises(BrokenError, match="True"), evaluating(model):
        raise BrokenError(modes(model) == [False] * 3)
    assert modes(model) == before


def test_evaluation_and_pictures(make_step: Make) -> None:
    tokenizer = make_step().tokenizer
    tokenizer.decoder.eval()  # a frozen decoder
    before = modes(tokenizer)
    loader = assembly.make_loader(config.load(TINY).to_dict(), "val_data")
    Evaluator(metrics=[]).evaluate(tokenizer, loader)
    assert modes(tokenizer) == before
    with pytest.raises(BrokenError):
        Evaluator(metrics=[]).evaluate(tokenizer, loader, on_batch=fail)
    assert modes(tokenizer) == before
    handle = tokenizer.decoder.register_forward_hook(fail)
    with pytest.raises(BrokenError):
        draw_pictures(tokenizer, batch()["image"])
    handle.remove()
    assert modes(tokenizer) == before


def test_sampling() -> None:
    transformer = DecoderTransformer(width=16, depth=1, num_heads=2, style=LlamaStyle(), dropout=0.1)
    generator = TransformerGenerator(
        transformer=transformer, vocabulary_size=8, num_classes=3, grid=(2, 2)
    ).train()
    generator.head.eval()
    before = modes(generator)
    generator.generate(torch.tensor([0]), seeds=torch.tensor([0]))
    assert modes(generator) == before
    transformer.register_forward_hook(fail)
    with pytest.raises(BrokenError):
        generator.generate(torch.tensor([0]), seeds=torch.tensor([0]))
    assert modes(generator) == before


@pytest.mark.parametrize("part", ["encoder", "quantizer", "decoder"])
def test_a_step_that_fails_in_a_micro_batch(make_step: Make, part: str) -> None:
    step = make_step(train_step__accumulate=2)
    step.optimization.autocast = True
    handle = getattr(step.tokenizer, part).register_forward_hook(fail)
    before = modes(step.tokenizer)
    with pytest.raises(BrokenError):
        step([batch(), batch()], 0)
    handle.remove()
    books = [book for book in step.tokenizer.modules() if isinstance(book, Codebook)]
    assert books
    assert not any(book.is_accumulating for book in books)
    assert not torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
    assert modes(step.tokenizer) == before
    assert all(p.requires_grad for p in step.tokenizer.parameters())


def test_counting_codebooks(make_step: Make) -> None:
    tokenizer = make_step().tokenizer
    with pytest.raises(BrokenError), accumulate(tokenizer):
        raise BrokenError
    assert not any(book.is_accumulating for book in tokenizer.modules() if isinstance(book, Codebook))


def test_the_averaged_weights_go_after_an_error(make_step: Make) -> None:
    step = make_step()
    step([batch()], 0)
    assert step.weight_ema is not None
    before = {name: tensor.clone() for name, tensor in step.tokenizer.state_dict().items()}
    with pytest.raises(BrokenError), step.weight_ema.applied():
        raise BrokenError
    assert all(torch.equal(tensor, before[name]) for name, tensor in step.tokenizer.state_dict().items())


@pytest.mark.parametrize("is_broken", [False, True])
def test_building_a_model_leaves_the_global_seed(is_broken: bool) -> None:
    tree = config.load(TINY).to_dict()
    if is_broken:
        tree["tokenizer"]["quantizer"]["codebook"]["size"] = 0
    before = torch.get_rng_state()
    try:
        assembly.make_step(tree, assembly.make_tokenizer(tree, seed=3))
        assert not is_broken
    except ValueError:
        assert is_broken
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.initial_seed() == 0  # conftest's
