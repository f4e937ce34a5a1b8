"""Run by test_step_ranks.py: steps on ranks and micro-batches of unequal size move as one process does on all of it.

Everything is in float64, where sums in another order differ by about 1e-16 of their terms, and SGD hands such
differences on without enlarging them: after three steps 1e-9 is far above rounding, and far below any wrong mean.

The ranks are forked from this process after it has computed what one process does.
"""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from einops import rearrange
from forked_ranks import run_on_ranks
from torch import Tensor, nn
from torch.optim import SGD

from vq import distributed
from vq.engine.steps.adversarial import AdversarialStep
from vq.engine.steps.alternating import AlternatingStep, codebook_parameters
from vq.engine.steps.base import TokenizerStep, TrainStep
from vq.engine.steps.discriminator import Adversary
from vq.engine.steps.generator import ProposalStep
from vq.engine.steps.reconstruction import ReconstructionStep
from vq.engine.steps.schedules import Constant
from vq.generators import DecoderTransformer, LlamaStyle, MaskedGenerator, TransformerGenerator
from vq.losses import FeatureAlignment, HingeObjective, L1Loss, LeCAMPenalty, R1Penalty
from vq.networks import PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.networks.teachers import Teacher, TeacherEncoder
from vq.quantizers import (
    ClusteredCodebook,
    Codebook,
    CosineDistance,
    EMACodebook,
    LearnedCodebook,
    MiniBatchKMeansCodebook,
    NormalInit,
    SphericalEMACodebook,
    VectorQuantizer,
)
from vq.tokenizers import FeatureTokenizer, ImageTokenizer, TokenizerWithDecoder

STEPS, IMAGES = 3, 12
SHARDS = {1: [12], 2: [9, 3], 4: [2, 5, 2, 3]}
"""How many of a step's images each rank has; with micro-batches the first of them has one."""
Scalars = dict[str, Tensor]


def tokenizer(book: Callable[..., Codebook]) -> ImageTokenizer:
    torch.manual_seed(0)
    encoder, decoder = StridedCNNEncoder(widths=(8, 8)), StridedCNNDecoder(widths=(8, 8))
    quantizer = VectorQuantizer(codebook=book(size=16, dim=4, init=NormalInit()))
    return ImageTokenizer(encoder=encoder, quantizer=quantizer, decoder=decoder).double().train()


def reconstruction(
    book: Callable[..., Codebook] = EMACodebook, *, accumulate: int, codes: bool = True
) -> Any:
    model = tokenizer(book)
    mine = set() if codes else {id(p) for p in codebook_parameters(model)}
    return ReconstructionStep(
        tokenizer=model,
        losses={"l1": L1Loss()},
        weights={"l1": 1.0, "quantizer": 1.0},
        optimizer=SGD([p for p in model.parameters() if id(p) not in mine], lr=0.05),
        schedule=Constant(),
        max_gradient_norm=0.5,
        weight_ema=0.9,
        accumulate=accumulate,
    )


def adversarial(*, accumulate: int, is_adaptive: bool = True) -> TrainStep:
    model = tokenizer(EMACodebook)
    discriminator = PatchDiscriminator(base_width=4, depth=1, norm="group").double()
    adversary = Adversary(
        discriminator=discriminator,
        objective=HingeObjective(),
        optimizer=SGD(discriminator.parameters(), lr=0.01),
        schedule=Constant(),
        penalties={"r1": R1Penalty(every=2), "lecam": LeCAMPenalty().double()},
        weights={"objective": 1.0, "r1": 0.1, "lecam": 0.1},
        max_gradient_norm=0.5,
    )
    return AdversarialStep(
        tokenizer=model,
        losses={"l1": L1Loss()},
        weights={"l1": 1.0, "quantizer": 1.0, "adversarial": 0.8},
        adversary=adversary,
        optimizer=SGD(model.parameters(), lr=0.01),
        schedule=Constant(),
        is_adaptive=is_adaptive,
        max_gradient_norm=1.0,
        accumulate=accumulate,
    )


def alternating(*, accumulate: int) -> TrainStep:
    inner = reconstruction(LearnedCodebook, accumulate=accumulate, codes=False)
    codes = codebook_parameters(inner.model)
    return AlternatingStep(step=inner, optimizer=SGD(codes, lr=0.5), num_codebook_steps=2)


def proposal(kind: type, *, accumulate: int) -> TrainStep:
    torch.manual_seed(0)
    transformer = DecoderTransformer(width=16, depth=1, num_heads=2, style=LlamaStyle(), dropout=0.0)
    model = kind(transformer=transformer, vocabulary_size=8, num_classes=3, grid=(4, 4)).double()
    model.eval()  # what is masked is then a function of the indices, not of a draw
    return ProposalStep(
        generator=model,
        tokenizer=None,
        optimizer=SGD(model.parameters(), lr=0.5),
        schedule=Constant(),
        accumulate=accumulate,
    )


class PatchPixels(Teacher):
    """A teacher whose features are the pixels of its patches."""

    channels, downsample_factor = 48, 4

    def features(self, image: Tensor) -> Tensor:
        return rearrange(image, "b c (h p) (w q) -> b h w (c p q)", p=4, q=4)


def aligned(step: Callable[..., TrainStep], *, source: str, channels: int, **options: Any) -> TrainStep:
    """A step with one more loss, whose projection is trained with the tokenizer."""
    torch.manual_seed(0)
    loss = FeatureAlignment(teacher=PatchPixels(), source=source, channels=channels).double()
    made = step(**options)
    return type(made)(
        **({"adversary": made.adversary} if isinstance(made, AdversarialStep) else {}),
        tokenizer=made.tokenizer,
        losses={**made.losses, "align": loss},
        weights=made.weights | {"align": 0.7},
        optimizer=partial(SGD, lr=0.01),
        schedule=Constant(),
        accumulate=options["accumulate"],
    )


def on_features(
    book: Callable[..., Codebook], *, accumulate: int, is_trained: bool = True, **options: Any
) -> TrainStep:
    """VQ-KD with a trained encoder; or clusters of a frozen one, which need no optimizer if nothing has a gradient."""
    torch.manual_seed(0)
    dim = 8 if is_trained else 48
    tokens = FeatureTokenizer(
        encoder=StridedCNNEncoder(widths=(8, 8)) if is_trained else TeacherEncoder(teacher=PatchPixels()),
        quantizer=VectorQuantizer(codebook=book(size=16, dim=dim, init=NormalInit()), **options),
        decoder=nn.Conv2d(8, 48, 1) if is_trained else None,
    )
    return ReconstructionStep(
        tokenizer=tokens.double().train(),
        losses={"cosine": FeatureAlignment(teacher=PatchPixels(), source="reconstruction")}
        if is_trained
        else {},
        weights={"quantizer": 1.0} | ({"cosine": 1.0} if is_trained else {}),
        optimizer=partial(SGD, lr=0.05) if any(True for _ in tokens.parameters()) else None,
        schedule=Constant(),
        accumulate=accumulate,
    )


def new_decoder(*, accumulate: int) -> TrainStep:
    torch.manual_seed(0)
    model = TokenizerWithDecoder(tokenizer=tokenizer(EMACodebook), decoder=StridedCNNDecoder(widths=(8, 8)))
    return ReconstructionStep(
        tokenizer=model.double().train(),
        losses={"l1": L1Loss()},
        weights={"l1": 1.0, "quantizer": 1.0},
        optimizer=partial(SGD, lr=0.05),
        schedule=Constant(),
        accumulate=accumulate,
    )


KINDS: dict[str, Callable[..., TrainStep]] = {
    "reconstruction-ema": reconstruction,
    "reconstruction-learned": lambda **o: reconstruction(LearnedCodebook, **o),
    "adversarial": adversarial,
    "adversarial-fixed": lambda **o: adversarial(is_adaptive=False, **o),
    "alternating": alternating,
    "aligned": partial(aligned, reconstruction, source="quantized", channels=4),
    "aligned-adversarial": partial(aligned, adversarial, source="decoder.blocks.0", channels=8),
    "vq-kd": partial(on_features, SphericalEMACodebook, distance=CosineDistance()),
    "cluster-streaming": partial(on_features, MiniBatchKMeansCodebook, is_trained=False),
    "cluster-gradient": partial(on_features, ClusteredCodebook, is_trained=False),
    "decoder": new_decoder,
    "proposal": lambda **o: proposal(TransformerGenerator, **o),
    "proposal-masked": lambda **o: proposal(MaskedGenerator, **o),
}


def batches(step: int, shard: slice, accumulate: int) -> list[Any]:
    numbers = torch.Generator().manual_seed(step)
    whole = {
        "image": torch.randint(0, 256, (IMAGES, 3, 16, 16), generator=numbers, dtype=torch.uint8),
        "indices": torch.randint(0, 8, (IMAGES, 4, 4), generator=numbers),
        "label": torch.arange(IMAGES) % 3,
    }
    mine = {name: value[shard] for name, value in whole.items()}
    cuts = [slice(None)] if accumulate == 1 else [slice(0, 1), slice(1, None)]
    return [{name: value[cut] for name, value in mine.items()} for cut in cuts]


def results(kind: str, shard: slice, accumulate: int) -> Scalars:
    """The weights after a few steps, all state, and the last step's scalars as the trainer logs them."""
    step = KINDS[kind](accumulate=accumulate)
    for number in range(STEPS):
        scalars = step(batches(number, shard, accumulate), number)
    found = {f"model.{name}": tensor for name, tensor in step.model.state_dict().items()}
    if step.weight_ema is not None:
        found |= {f"average.{name}": tensor for name, tensor in step.weight_ema.average.items()}
    if isinstance(step, AdversarialStep):
        found |= {f"discriminator.{n}": t for n, t in step.adversary.discriminator.state_dict().items()}
        found["anchors"] = step.adversary.penalties["lecam"].get_buffer("anchors")
    if isinstance(step, TokenizerStep):
        for name, loss in step.losses.items():
            found |= {f"model.{name}.{n}": tensor for n, tensor in loss.state_dict().items()}
    for name, value in scalars.items():
        found[f"logged.{name}"] = distributed.all_reduce_sum(value.double()) / distributed.world_size()
    return {name: tensor.detach().clone().double() for name, tensor in found.items()}


def compare(where: str, found: Scalars, expected: Scalars) -> None:
    assert found.keys() == expected.keys(), where
    for name, value in found.items():
        atol = (
            2e-7 if name.endswith("accuracy") else 1e-9
        )  # accuracies are means in float32, whose spacing is 1.2e-7
        torch.testing.assert_close(
            value, expected[name], atol=atol, rtol=1e-9, msg=lambda m, n=name: f"{where}: {n}: {m}"
        )
        if name.startswith(("model.", "average.", "discriminator.")):
            everywhere = distributed.all_gather_cat(value.flatten()[None])
            assert (everywhere == everywhere[0]).all(), f"{where}: {name} differs between ranks"


def run_rank(rank: int, size: int, expected: dict[str, Scalars]) -> None:
    first = sum(SHARDS[size][:rank])
    shard = slice(first, first + SHARDS[size][rank])
    for kind in KINDS:
        for accumulate in (1, 2):
            compare(f"{size} ranks, {kind}, {accumulate}", results(kind, shard, accumulate), expected[kind])


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    whole = slice(0, IMAGES)
    expected = {kind: results(kind, whole, 1) for kind in KINDS}
    for kind in KINDS:
        compare(f"{kind}, micro-batches", results(kind, whole, 2), expected[kind])
    return run_on_ranks(partial(run_rank, expected=expected), 2, 4)


if __name__ == "__main__":
    sys.exit(main())
