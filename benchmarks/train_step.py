"""What a full adversarial step costs against the same step as it is usually written: `python benchmarks/train_step.py`.

VQGAN f16 (72 M parameters) with LPIPS-vgg, PatchGAN and the adaptive weight, on 128 px. The usual way: the
tokenizer and the losses run once for each optimizer, and the adaptive weight takes gradients through the losses
that the backward pass takes again. Both sides have the same weights and images and must arrive at the same
losses; they are timed in turn and medians are compared. Bar: 1.5 times as fast.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from vq.engine import AdversarialStep, Adversary, Constant
from vq.losses import HingeObjective, L1Loss, LPIPSLoss
from vq.networks import CNNDecoder, CNNEncoder, PatchDiscriminator
from vq.ops.images import to_signed_unit
from vq.quantizers import LearnedCodebook, UniformInit, VectorQuantizer
from vq.tokenizers import ImageTokenizer

BAR = 1.5
GAIN = 0.8
IMAGE_SIZE = 128


def make_step(base_width: int) -> AdversarialStep:
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(
        encoder=CNNEncoder(base_width=base_width),
        quantizer=VectorQuantizer(
            codebook=LearnedCodebook(size=1024, dim=256, init=UniformInit()), commitment_weight=0.25
        ),
        decoder=CNNDecoder(base_width=base_width),
    ).train()
    discriminator = PatchDiscriminator()
    return AdversarialStep(
        tokenizer=tokenizer,
        losses={"l1": L1Loss(), "lpips": LPIPSLoss(network="vgg")},
        weights={"l1": 1.0, "lpips": 1.0, "quantizer": 1.0, "adversarial": GAIN},
        adversary=Adversary(
            discriminator=discriminator,
            objective=HingeObjective(),
            optimizer=torch.optim.Adam(discriminator.parameters(), lr=4e-5, betas=(0.5, 0.9)),
            schedule=Constant(),
        ),
        optimizer=torch.optim.Adam(tokenizer.parameters(), lr=5e-6, betas=(0.5, 0.9)),
        schedule=Constant(),
    )


class UsualStep:
    """One pass of everything for each of the two optimizers."""

    def __init__(self, step: AdversarialStep) -> None:
        self.tokenizer, self.discriminator = step.tokenizer, step.adversary.discriminator
        self.optimizers = step.optimization.optimizer.inner, step.adversary.optimizer.inner
        self.losses = step.losses

    def __call__(self, image: Tensor) -> Tensor:
        generator, discriminator = self.optimizers
        reconstruction, quantizer, losses = self._losses(image)
        adversarial = -self.discriminator(reconstruction).mean()
        last = self.tokenizer.decoder.last_layer
        wanted, found = (torch.autograd.grad(x, last, retain_graph=True)[0] for x in (losses, adversarial))
        weight = GAIN * (wanted.norm() / (found.norm() + 1e-4)).clamp(0, 1e4).detach()
        total = losses + quantizer + weight * adversarial
        generator.zero_grad()
        total.backward()
        generator.step()

        reconstruction, _, _ = self._losses(image)
        real, fake = self.discriminator(image), self.discriminator(reconstruction.detach())
        discriminator.zero_grad()
        HingeObjective().discriminator(real, fake).backward()
        discriminator.step()
        return total.detach()

    def _losses(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.tokenizer(image)
        losses = sum(loss(output.reconstruction, image) for loss in self.losses.values())
        return output.reconstruction, output.quantize.loss, losses


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each side")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--base-width", type=int, default=128, help="smaller for a look that proves nothing")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()

    ours, usual = make_step(args.base_width), UsualStep(make_step(args.base_width))
    torch.manual_seed(1)
    size = (args.batch, 3, IMAGE_SIZE, IMAGE_SIZE)
    images = torch.nn.functional.interpolate(
        torch.rand(args.batch, 3, 8, 8) * 255, size=size[2:], mode="bicubic"
    )
    pixels = images.clamp(0, 255).to(torch.uint8)
    batch = {"image": pixels}
    first, second = ours([batch], 0)["loss/total"], usual(to_signed_unit(pixels))  # both warm up
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
    times: dict[str, list[float]] = {"ours": [], "usual": []}
    for number in range(1, args.rounds + 1):
        times["ours"].append(seconds(lambda n=number: ours([batch], n)))  # type: ignore[misc]
        times["usual"].append(seconds(lambda: usual(to_signed_unit(pixels))))

    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["usual"] / medians["ours"]
    for name, median in medians.items():
        spread = f"{min(times[name]):.2f}..{max(times[name]):.2f}"
        print(f"{name:6} median {median:7.2f} s a step of {args.batch} images ({spread})")
    print(f"ratio {ratio:.2f} (bar: at least {BAR})")
    if args.out:
        record = {
            "command": "python " + " ".join(sys.argv),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}; {torch.get_num_threads()} threads; torch {torch.__version__}",
            "seconds": times,
            "ratio": ratio,
            "bar": BAR,
        }
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(ratio < BAR)


if __name__ == "__main__":
    main()
