"""Counts the parameters of a training step and estimates the memory that it takes."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from vq.engine.steps.adversarial import AdversarialStep
from vq.engine.steps.alternating import AlternatingStep
from vq.engine.steps.base import TrainStep
from vq.tokenizers import Tokenizer


def describe(step: TrainStep, *, image_size: tuple[int, int], batch: int) -> list[str]:
    """Lines on the parameters that a step trains, and an estimate of the memory that each training process takes.

    Args:
        step: Trains a tokenizer.
        image_size: Height and width of a training image.
        batch: Images per rank and micro-batch.
    """
    model, discriminator = step.model, _discriminator(step)
    if not isinstance(model, Tokenizer):
        raise TypeError(f"step: expected one that trains a tokenizer, got {type(step).__name__}")
    total = _num_parameters(model)
    parts = ", ".join(f"{name} {_num_parameters(part):,}" for name, part in model.named_children())
    lines = [f"parameters: {total:,} ({parts})"]
    copies = 4 if step.weight_ema is None else 5  # weights, gradients, two moments, average
    state = 4 * copies * total + sum(b.numel() * b.element_size() for b in model.buffers())
    if discriminator is not None:
        trained = sum(p.numel() for p in discriminator.parameters() if p.requires_grad)
        lines.append(f"parameters of the discriminator: {trained:,}")
        state += 4 * 4 * trained
    activations = _num_activations(model, batch, image_size) * (2 if step.optimization.autocast else 4)
    height, width = image_size
    indices = " x ".join(map(str, model.indices_shape(height, width)))
    return [
        *lines,
        f"an image of {height} x {width} becomes {indices} indices out of {model.codebook_size:,}",
        f"memory per rank, estimated: {(state + activations) / 2**20:,.0f} MiB "
        f"(weights, gradients, optimizer, average {state / 2**20:,.0f}; activations of {batch} images "
        f"{activations / 2**20:,.0f}; losses and workspace come on top)",
    ]


def _num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _discriminator(step: TrainStep) -> nn.Module | None:
    """The discriminator of a step, or of the step that it wraps."""
    if isinstance(step, AlternatingStep):
        return _discriminator(step.step)
    return step.adversary.discriminator if isinstance(step, AdversarialStep) else None


def _num_activations(tokenizer: Tokenizer, batch: int, image_size: tuple[int, int]) -> int:
    """Numbers in the outputs of all layers of encoder and decoder, found on the meta device: nothing is computed."""
    on_meta = {id(t): t.detach().to("meta") for t in (*tokenizer.parameters(), *tokenizer.buffers())}
    parameters = {id(p): nn.Parameter(on_meta[id(p)]) for p in tokenizer.parameters()}
    ghost: Tokenizer = copy.deepcopy(tokenizer, {**on_meta, **parameters})
    count = 0

    def add_output(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal count
        if not list(module.children()) and isinstance(output, Tensor):
            count += output.numel()

    for module in ghost.modules():
        module.register_forward_hook(add_output)
    with torch.device("meta"):
        ghost.bypass(torch.empty(batch, tokenizer.image_channels, *image_size))
    return count
