"""Parameter counts and a memory estimate of a tokenizer, from the meta device."""

from collections.abc import Mapping
from typing import Any

import torch

from vq.engine.assembly.build import make_tokenizer
from vq.registry import build

Tree = Mapping[str, Any]


def _described_discriminator(node: Tree) -> torch.nn.Module | None:
    """The discriminator of a step, or of the step that it wraps."""
    if "step" in node:
        return _described_discriminator(node["step"])
    if "adversary" not in node:
        return None
    path = "train_step.adversary.discriminator"
    discriminator: torch.nn.Module = build(node["adversary"]["discriminator"], path=path)
    return discriminator


def describe(config: Tree, *, image_size: tuple[int, int], batch: int, autocast: bool) -> list[str]:
    """The parts' parameters and an estimate of the memory that training takes, from the meta device alone.

    Args:
        config: The resolved config.
        image_size: Height and width of a training image.
        batch: Images a rank and micro-batch.
        autocast: Whether activations are kept in bfloat16.
    """
    with torch.device("meta"):
        tokenizer = make_tokenizer(config)
        image = torch.empty(batch, 3, *image_size)
        activations = 0

        def count(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            nonlocal activations
            if not list(module.children()) and isinstance(output, torch.Tensor):
                activations += output.numel() * (2 if autocast else 4)

        hooks = [m.register_forward_hook(count) for m in tokenizer.modules()]
        tokenizer.bypass(image)
        for hook in hooks:
            hook.remove()
        discriminator = _described_discriminator(config["train_step"])
    indices = " x ".join(map(str, tokenizer.indices_shape(*image_size)))
    parts = {name: sum(p.numel() for p in module.parameters()) for name, module in tokenizer.named_children()}
    total = sum(p.numel() for p in tokenizer.parameters())
    buffers = sum(b.numel() * b.element_size() for b in tokenizer.buffers())
    copies = 4 + (
        config["train_step"].get("weight_ema") is not None
    )  # weights, gradients, two moments, average
    state = copies * 4 * total + buffers
    told = [f"parameters: {total:,} ({', '.join(f'{name} {n:,}' for name, n in parts.items())})"]
    if discriminator is not None:
        others = sum(p.numel() for p in discriminator.parameters() if p.requires_grad)
        told.append(f"parameters of the discriminator: {others:,}")
        state += 4 * 4 * others
    return [
        *told,
        f"an image of {image_size[0]} x {image_size[1]} becomes {indices} indices out of {tokenizer.codebook_size:,}",
        f"memory a rank, estimated: {(state + activations) / 2**20:,.0f} MiB "
        f"(weights, gradients, optimizer, average {state / 2**20:,.0f}; activations of {batch} images "
        f"{activations / 2**20:,.0f}; losses and workspace come on top)",
    ]
