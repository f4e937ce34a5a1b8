"""Every step with every option, alone and together, is saved, restored into new objects, and goes on bit for bit."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vq.engine import Checkpointer
from vq.engine.steps.adversarial import AdversarialStep
from vq.engine.steps.alternating import AlternatingStep, codebook_parameters
from vq.engine.steps.base import TrainStep
from vq.engine.steps.discriminator import Adversary
from vq.engine.steps.generator import ProposalStep, decay_groups
from vq.engine.steps.probe import ProbeStep
from vq.engine.steps.reconstruction import ReconstructionStep
from vq.engine.steps.schedules import (
    Constant,
    WarmupCosine,
    WarmupLinear,
    WarmupStableDecay,
    WarmupStepDrop,
)
from vq.generators import DecoderTransformer, LlamaStyle, MaskedGenerator, TransformerGenerator
from vq.layers.diff_augment import DiffAugment
from vq.losses import HingeObjective, L1Loss, LeCAMPenalty, R1Penalty
from vq.networks import PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.probes import LinearProbe, PooledCodes
from vq.quantizers import (
    EMACodebook,
    GumbelQuantizer,
    KMeansInit,
    LearnedCodebook,
    LinearAnnealing,
    NormalInit,
    Quantizer,
    ReplaceDeadCodes,
    ResidualQuantizer,
    VectorQuantizer,
)
from vq.registry import STEPS
from vq.tokenizers import ImageTokenizer

Options = dict[str, Any]
OPTIONS: dict[str, Options] = {
    "plain": {},
    "weight_ema": {"weight_ema": 0.9},
    "accumulate": {"accumulate": 2},
    "autocast": {"autocast": True},
    "schedule": {"schedule": WarmupCosine(total_steps=6, warmup_steps=2)},
    "linear": {"schedule": WarmupLinear(total_steps=6, warmup_steps=2)},
    "stable": {"schedule": WarmupStableDecay(total_steps=6, decay_steps=3)},
    "drop": {"schedule": WarmupStepDrop(total_steps=6, drops=[3, 4])},
    "clipping": {"max_gradient_norm": 0.01},
}
OPTIONS["all"] = {name: value for options in OPTIONS.values() for name, value in options.items()}
ADVERSARIES: dict[str, Options] = {
    "late": {"start_step": 3},
    "penalties": {
        "penalties": {"lecam": LeCAMPenalty(), "r1": R1Penalty(every=2)},
        "weights": {"objective": 1.0, "lecam": 0.01, "r1": 0.1},
    },
    "clipping": {"max_gradient_norm": 0.01},
    "schedule": {"schedule": WarmupCosine(total_steps=6, warmup_steps=2)},
    "augmentation": {"augmentation": DiffAugment()},
    "weights": {
        "penalties": {"r1": R1Penalty(every=1)},
        "weights": {"objective": 1.0, "r1": LinearAnnealing(first=1.0, last=0.0, start=1, steps=4)},
    },
}


def learned() -> Quantizer:
    book = LearnedCodebook(size=8, dim=4, init=NormalInit(), revival=ReplaceDeadCodes())
    return VectorQuantizer(codebook=book)


def averaged() -> Quantizer:
    return VectorQuantizer(codebook=EMACodebook(size=8, dim=4, init=KMeansInit(), revival=ReplaceDeadCodes()))


def shared() -> Quantizer:
    return ResidualQuantizer(quantizers=[learned()], depth=2)


def tokenizer(quantizer: Callable[[], Quantizer], seed: int) -> ImageTokenizer:
    torch.manual_seed(seed)
    widths = (8, 8)
    encoder, decoder = StridedCNNEncoder(widths=widths), StridedCNNDecoder(widths=widths)
    return ImageTokenizer(encoder=encoder, quantizer=quantizer(), decoder=decoder).train()


def all_of(model: nn.Module) -> list[nn.Parameter]:
    return list(model.parameters())


def all_but_codes(model: nn.Module) -> list[nn.Parameter]:
    codes = {id(p) for p in codebook_parameters(model)}
    return [p for p in model.parameters() if id(p) not in codes]


def reconstruction(
    seed: int, quantizer: Callable[[], Quantizer] = averaged, moved: Any = all_of, **options: Any
) -> TrainStep:
    model = tokenizer(quantizer, seed)
    given = {
        "schedule": Constant(),
        "optimizer": torch.optim.AdamW(moved(model), lr=1e-2),
        "weights": {"l1": 1.0, "quantizer": 1.0},
    } | options
    return ReconstructionStep(tokenizer=model, losses={"l1": L1Loss()}, **given)


def adversarial(
    seed: int,
    quantizer: Callable[[], Quantizer] = averaged,
    moved: Any = all_of,
    adversary: Options | None = None,
    **options: Any,
) -> TrainStep:
    model = tokenizer(quantizer, seed)
    discriminator = PatchDiscriminator(base_width=4, depth=1)
    side = {"schedule": Constant()} | copy.deepcopy(adversary or {})  # penalties have a state of their own
    side["optimizer"] = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    given = {
        "schedule": Constant(),
        "optimizer": torch.optim.AdamW(moved(model), lr=1e-2),
        "weights": {"l1": 1.0, "quantizer": 1.0, "adversarial": 0.5},
    } | options
    return AdversarialStep(
        tokenizer=model,
        losses={"l1": L1Loss()},
        adversary=Adversary(discriminator=discriminator, objective=HingeObjective(), **side),
        **given,
    )


def around(make: Callable[..., TrainStep]) -> Callable[..., TrainStep]:
    def alternating(seed: int, **options: Any) -> TrainStep:
        inner = make(seed, quantizer=learned, moved=all_but_codes, **options)
        optimizer = torch.optim.Adam(codebook_parameters(inner.model), lr=1e-2)
        return AlternatingStep(step=inner, optimizer=optimizer, num_codebook_steps=2)

    return alternating


def proposal(kind: type) -> Callable[..., TrainStep]:
    def make(seed: int, **options: Any) -> TrainStep:
        torch.manual_seed(seed)
        transformer = DecoderTransformer(width=16, depth=1, num_heads=2, style=LlamaStyle(), dropout=0.1)
        model = kind(transformer=transformer, vocabulary_size=8, num_classes=3, grid=(4, 4)).train()
        given = {
            "schedule": Constant(),
            "optimizer": torch.optim.AdamW(decay_groups(model), lr=1e-2),
        } | options
        return ProposalStep(generator=model, tokenizer=None, **given)

    return make


def probe(seed: int, **options: Any) -> TrainStep:
    features = PooledCodes(tokenizer=tokenizer(averaged, 0))  # not part of the state, so always the same
    torch.manual_seed(seed)
    model = LinearProbe(features=features, num_classes=3).train()
    given = {"schedule": Constant(), "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-2)} | options
    return ProbeStep(probe=model, **given)


class TiedGenerator(TransformerGenerator):
    """Its last layer is its table."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.also = nn.Module()
        self.also.transformer = self.transformer


STEP_KINDS: dict[str, Callable[..., TrainStep]] = {
    "reconstruction": reconstruction,
    "reconstruction-shared": lambda seed, **o: reconstruction(seed, quantizer=shared, **o),
    "adversarial": adversarial,
    "alternating": around(reconstruction),
    "alternating-adversarial": around(adversarial),
    "proposal": proposal(TransformerGenerator),
    "proposal-masked": proposal(MaskedGenerator),
    "proposal-tied": proposal(TiedGenerator),
    "probe": probe,
}


def batch(number: int) -> dict[str, Any]:
    numbers = torch.Generator().manual_seed(number)
    return {
        "image": torch.randint(0, 256, (4, 3, 16, 16), generator=numbers, dtype=torch.uint8),
        "indices": torch.randint(0, 8, (4, 4, 4), generator=numbers),
        "label": torch.arange(4) % 3,
        "key": ["a"] * 4,
    }


def take(step: TrainStep, first: int, last: int) -> list[dict[str, Tensor]]:
    rows = []
    for number in range(first, last):
        torch.manual_seed(number)
        rows.append(step([batch(9 * number + i) for i in range(step.accumulate)], number))
    return rows


def everything(step: TrainStep) -> dict[str, Any]:
    average = {} if step.weight_ema is None else step.weight_ema.average
    return {"model": step.model.state_dict(), "average": average, "state": step.state_dict()}


def same(a: Any, b: Any, path: str = "") -> None:
    if isinstance(a, Mapping):
        assert a.keys() == b.keys(), path
        for key in a:
            same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}[{i}]")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def check(make: Callable[[int], TrainStep], folder: Path) -> None:
    unbroken, resumed = make(1), make(2)
    take(unbroken, 0, 3)
    checkpointer = Checkpointer(directory=folder, config={}, every=1)
    checkpointer.save(unbroken, 3)
    assert checkpointer.restore(resumed, folder / "iter_3") == 3
    same(everything(resumed), everything(unbroken))
    same(take(resumed, 3, 6), take(unbroken, 3, 6))
    same(everything(resumed), everything(unbroken))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", STEP_KINDS)
def test_a_step_with_options_continues_bit_for_bit(kind: str, options: str, tmp_path: Path) -> None:
    check(lambda seed: STEP_KINDS[kind](seed, **OPTIONS[options]), tmp_path)


@pytest.mark.parametrize("options", ADVERSARIES)
@pytest.mark.parametrize("kind", ["adversarial", "alternating-adversarial"])
def test_an_adversary_with_options_continues_bit_for_bit(kind: str, options: str, tmp_path: Path) -> None:
    check(lambda seed: STEP_KINDS[kind](seed, adversary=ADVERSARIES[options]), tmp_path)


@pytest.mark.parametrize("is_adaptive", [True, False])
def test_the_adversarial_weight_in_both_forms(is_adaptive: bool, tmp_path: Path) -> None:
    check(lambda seed: adversarial(seed, is_adaptive=is_adaptive, **OPTIONS["all"]), tmp_path)


@pytest.mark.parametrize("kind", ["reconstruction", "adversarial"])
def test_annealed_numbers_continue(kind: str, tmp_path: Path) -> None:
    annealing = {"temperature": LinearAnnealing(first=2.0, last=1.0, steps=5)}

    def whole_number() -> Quantizer:
        quantizer = GumbelQuantizer(size=8, dim=4)
        quantizer.temperature = 1  # as users write it
        return quantizer

    check(lambda seed: STEP_KINDS[kind](seed, quantizer=whole_number, annealing=annealing), tmp_path)


@pytest.mark.parametrize("is_adversarial", [False, True])
def test_weights_that_change_continue(is_adversarial: bool, tmp_path: Path) -> None:
    weights = {"l1": LinearAnnealing(first=1.0, last=0.1, start=1, steps=4), "quantizer": 1.0}
    if is_adversarial:
        weights["adversarial"] = LinearAnnealing(first=0.0, last=0.8, start=2, steps=3)
    kind = "adversarial" if is_adversarial else "reconstruction"
    check(lambda seed: STEP_KINDS[kind](seed, weights=weights, accumulate=2), tmp_path)


def test_every_registered_step_is_here() -> None:
    kinds = {type(make(0)).__name__ for make in STEP_KINDS.values()}
    assert kinds == set(STEPS.module_dict)
