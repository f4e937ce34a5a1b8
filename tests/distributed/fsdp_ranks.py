"""Run by test_rank_scripts.py: FSDP2 moves as DDP does, in float32, and its checkpoints are those of DDP.

By default on 2 ranks; with numbers of ranks as arguments, every kind of step is tried with and without accumulation.
"""

import copy
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_ranks import run_on_ranks
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, Adafactor, AdamW, Optimizer

from vq import distributed
from vq.engine import (
    DDP,
    FSDP2,
    AdversarialStep,
    Adversary,
    AlternatingStep,
    Checkpointer,
    ProposalStep,
    ReconstructionStep,
    TrainStep,
)
from vq.engine.steps.optimization import Optimization
from vq.engine.steps.schedules import Constant
from vq.engine.strategies import Strategy
from vq.engine.strategies.fsdp2 import EQUAL_WHEN_DIVIDED, is_supported
from vq.engine.strategies.shards import clip_gradients, divided_like, gathered, is_divided
from vq.errors import ConfigError
from vq.generators import DecoderTransformer, LlamaStyle, TransformerGenerator
from vq.losses import HingeObjective, L1Loss, LeCAMPenalty
from vq.networks import PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import (
    Codebook,
    EMACodebook,
    KMeansInit,
    LearnedCodebook,
    ReplaceDeadCodes,
    VectorQuantizer,
)
from vq.tokenizers import ImageTokenizer

STEPS, IMAGES = 20, 8
LAST_LAYERS = ("decoder.upsamples.1.weight",)
REDUCTIONS = ("allreduce", "_reduce_scatter")


def reconstruction(
    book: Callable[..., Codebook],
    *,
    strategy: Strategy,
    accumulate: int,
    optimizer: type[Optimizer] = AdamW,
    dtype: torch.dtype = torch.float32,
) -> TrainStep:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(codebook=book(size=16, dim=4, init=KMeansInit(), revival=ReplaceDeadCodes()))
    model = ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8, 8)),
        quantizer=quantizer,
        decoder=StridedCNNDecoder(widths=(8, 8)),
    )
    return ReconstructionStep(
        tokenizer=model.to(dtype).train(),
        losses={"l1": L1Loss()},
        weights={"l1": 1.0, "quantizer": 1.0},
        optimizer=partial(optimizer, lr=1e-3),
        schedule=Constant(),
        max_gradient_norm=0.5,
        weight_ema=0.9,
        decay="matrices",
        accumulate=accumulate,
        strategy=strategy,
    )


def adversarial(*, strategy: Strategy, accumulate: int) -> TrainStep:
    inner = reconstruction(EMACodebook, strategy=DDP(), accumulate=1)
    torch.manual_seed(1)
    adversary = Adversary(
        discriminator=PatchDiscriminator(base_width=4, depth=1, norm="group"),
        objective=HingeObjective(),
        optimizer=partial(SGD, lr=1e-2),
        schedule=Constant(),
        penalties={"lecam": LeCAMPenalty()},
        weights={"objective": 1.0, "lecam": 0.1},
    )
    return AdversarialStep(
        tokenizer=inner.model,
        losses={"l1": L1Loss()},
        weights={"l1": 1.0, "quantizer": 1.0, "adversarial": 0.8},
        adversary=adversary,
        is_adaptive=accumulate == 1,
        optimizer=partial(AdamW, lr=1e-3),
        schedule=Constant(),
        weight_ema=0.9,
        accumulate=accumulate,
        strategy=strategy,
        checkpoint_activations=strategy.is_sharded,
    )


def proposal(*, strategy: Strategy, accumulate: int) -> TrainStep:
    torch.manual_seed(0)
    transformer = DecoderTransformer(width=16, depth=2, num_heads=2, style=LlamaStyle(), dropout=0.1)
    model = TransformerGenerator(transformer=transformer, vocabulary_size=8, num_classes=3, grid=(4, 4))
    return ProposalStep(
        generator=model.train(),
        tokenizer=None,
        optimizer=partial(AdamW, lr=1e-3),
        schedule=Constant(),
        weight_ema=0.9,
        accumulate=accumulate,
        strategy=strategy,
        checkpoint_activations=strategy.is_sharded,  # with dropout: it must not be drawn anew
    )


KINDS: dict[str, Callable[..., TrainStep]] = {
    "ema": partial(reconstruction, EMACodebook),
    "learned": partial(reconstruction, LearnedCodebook),
    "adversarial": adversarial,
    "proposal": proposal,
}


def batches(step: int, accumulate: int) -> list[Any]:
    numbers = torch.Generator().manual_seed(step)
    whole = {
        "image": torch.randint(0, 256, (IMAGES, 3, 16, 16), generator=numbers, dtype=torch.uint8),
        "indices": torch.randint(0, 8, (IMAGES, 4, 4), generator=numbers),
        "label": torch.arange(IMAGES) % 3,
    }
    rank, size = distributed.rank(), distributed.world_size()
    mine = {name: value.chunk(size)[rank] for name, value in whole.items()}
    cuts = [slice(None)] if accumulate == 1 else [slice(0, 1), slice(1, None)]
    return [{name: value[cut] for name, value in mine.items()} for cut in cuts]


def taken(step: TrainStep, start: int, stop: int) -> list[dict[str, float]]:
    """Takes steps, and returns their scalars as the trainer logs them."""
    logged = []
    for number in range(start, stop):
        torch.manual_seed(number + 100 * distributed.rank())
        scalars = step(batches(number, step.accumulate), number)
        logged.append(
            {name: float(distributed.all_reduce_sum(value.double())) for name, value in scalars.items()}
        )
    return logged


def whole(step: TrainStep) -> dict[str, Tensor]:
    assert step.weight_ema is not None
    state: dict[str, Tensor] = gathered(dict(step.model.state_dict()))
    average: dict[str, Tensor] = gathered(dict(step.weight_ema.average))
    return state | {f"average.{name}": value for name, value in average.items()}


def check_replicated(step: TrainStep, where: str) -> None:
    """The quantizer is the same on every rank, bit for bit; everything else of the model is divided."""
    for name, tensor in step.model.state_dict().items():
        is_divided = isinstance(tensor, DTensor)
        if name.startswith("quantizer."):
            assert not is_divided, f"{where}: {name}"
            everywhere = distributed.all_gather_cat(tensor.flatten()[None])
            assert (everywhere == everywhere[0]).all(), f"{where}: {name} differs between ranks"
        elif name not in LAST_LAYERS:
            assert is_divided, f"{where}: {name}"


def check_equal(
    found: dict[str, Tensor], expected: dict[str, Tensor], where: str, atol: float = 1e-5
) -> None:
    if distributed.rank() == 0:
        assert found.keys() == expected.keys(), where
        for name, value in found.items():
            torch.testing.assert_close(
                value, expected[name], atol=atol, rtol=0, msg=lambda m, n=name: f"{where}: {n}: {m}"
            )


def check_kind(kind: str, accumulate: int, strategy: Strategy) -> tuple[TrainStep, TrainStep]:
    where = f"{kind}, {accumulate} micro-batches, {distributed.world_size()} ranks"
    plain = KINDS[kind](strategy=DDP(), accumulate=accumulate)
    sharded = KINDS[kind](strategy=strategy, accumulate=accumulate)
    for number, (found, expected) in enumerate(
        zip(taken(sharded, 0, STEPS), taken(plain, 0, STEPS), strict=True)
    ):
        for name, value in expected.items():
            assert abs(found[name] - value) <= 1e-5 * max(1, abs(value)), (
                where,
                number,
                name,
                found,
                expected,
            )
    check_replicated(sharded, where)
    check_equal(whole(sharded), whole(plain), where)
    if isinstance(plain, AdversarialStep) and isinstance(sharded, AdversarialStep):
        found, expected = (dict(step.adversary.discriminator.state_dict()) for step in (sharded, plain))
        check_equal(found, expected, f"{where}: discriminator")
        for name, tensor in found.items():
            everywhere = distributed.all_gather_cat(tensor.flatten()[None])
            assert (everywhere == everywhere[0]).all(), f"{where}: discriminator: {name}"
    return plain, sharded


def check_checkpoints(kind: str, strategy: Strategy, folder: Path, continued_by: Sequence[Strategy]) -> None:
    """A checkpoint of either strategy is continued by others."""
    plain, sharded = check_kind(kind, 2, strategy)
    for name, step in (("plain", plain), ("sharded", sharded)):
        keeper = Checkpointer(directory=folder / kind / name, config={}, every=1)
        keeper.save(step, STEPS)
        for other in continued_by:
            continued = KINDS[kind](strategy=other, accumulate=2)
            assert keeper.restore(continued, keeper.directory / f"iter_{STEPS}") == STEPS
            check_equal(whole(continued), whole(step), f"{kind}, {name}, restored", atol=0)
            restored, saved = gathered(continued.state_dict()), gathered(step.state_dict())
            if distributed.rank() == 0:
                torch.testing.assert_close(numbers_in(restored), numbers_in(saved), atol=0, rtol=0)
            taken(continued, STEPS, STEPS + 1)


def numbers_in(tree: Any) -> Any:
    """A state without the names of classes."""
    if isinstance(tree, dict):
        return {key: numbers_in(value) for key, value in tree.items() if not isinstance(value, str)}
    return tree


def check_accumulation() -> None:
    """Gradients are reduced once per optimizer step, however many micro-batches it has."""
    for strategy in (DDP(), FSDP2()):
        found = []
        for accumulate in (1, 2):
            step = proposal(strategy=strategy, accumulate=accumulate)
            taken(step, 0, 1)
            with torch.profiler.profile() as profile:
                step(batches(1, accumulate), 1)
            names = [event.name for event in profile.events() or []]
            found.append([sum(name.startswith(f"c10d::{kind}") for name in names) for kind in REDUCTIONS])
        assert found[0] == found[1], (type(strategy).__name__, found)
        assert (found[0][1] > 0) is strategy.is_sharded, found
        assert found[0][0] > 0, found


def check_parts() -> None:
    """Gathering returns what was divided, evenly or not, and clipping is that of the whole gradients (float64)."""
    for strategy in (FSDP2(), FSDP2(shards=2)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1), nn.Conv2d(2, 9, 3)).double()
        expected = copy.deepcopy(model)
        gradients = [torch.randn_like(p) for p in expected.parameters()]
        strategy.wrap(model)
        for plain, divided, gradient in zip(
            expected.parameters(), model.parameters(), gradients, strict=True
        ):
            assert is_divided(divided)
            plain.grad, divided.grad = gradient.clone(), divided_like(gradient, divided)
        norm = nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
        # Each addition of squares may round; no clipped gradient is above 0.5.
        rounding = sum(g.numel() for g in gradients) * torch.finfo(torch.float64).eps
        found_norm = clip_gradients(list(model.parameters()), 0.5)
        torch.testing.assert_close(found_norm, norm, rtol=rounding, atol=0)
        weights = gathered(dict(model.state_dict()))
        found = gathered({name: p.grad for name, p in model.named_parameters()})
        if distributed.rank() > 0:
            assert not any(x.numel() for x in (*weights.values(), *found.values()))
            continue
        check_equal(weights, dict(expected.state_dict()), "gathered weights", atol=0)
        clipped = {name: p.grad for name, p in expected.named_parameters() if p.grad is not None}
        check_equal(found, clipped, "clipped gradients", atol=rounding)


def check_optimizers() -> None:
    """Each optimizer moves divided parameters as it moves whole ones; in float64, as some enlarge rounding."""
    settings: dict[str, Any] = {"accumulate": 1, "dtype": torch.float64}
    for optimizer in EQUAL_WHEN_DIVIDED:
        found = []
        for strategy in (DDP(), FSDP2()):
            step = reconstruction(LearnedCodebook, strategy=strategy, optimizer=optimizer, **settings)
            before = whole(step)
            taken(step, 0, 3)
            found.append(whole(step))
        check_equal(found[1], found[0], optimizer.__name__, atol=1e-8)
        if distributed.rank() == 0:
            assert any((found[1][name] != value).any() for name, value in before.items()), optimizer


def check_refusals() -> None:
    """What cannot be divided is refused on every rank, before anything is."""
    compiled, channels_last = (
        reconstruction(EMACodebook, strategy=DDP(), accumulate=1).model for _ in range(2)
    )
    compiled.get_submodule("encoder").compile()
    channels_last.to(memory_format=torch.channels_last)
    for model, words in ((compiled, "compile"), (channels_last, "channels_last")):
        with pytest.raises(ConfigError, match=words):
            FSDP2().wrap(model)
    tied = nn.Sequential(*(nn.TransformerEncoderLayer(4, 1, 4) for _ in range(2)))
    layers = [tied.get_submodule(f"{i}.linear1") for i in range(2)]
    layers[1].weight = layers[0].weight
    with pytest.raises(
        ConfigError, match=r"got 0\.linear1\.weight, 1\.linear1\.weight, which are one parameter"
    ):
        FSDP2().wrap(tied)
    with pytest.raises(ConfigError, match=r"shards=3 and 2 ranks|shards=3 and 4 ranks"):
        FSDP2(shards=3).wrap(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="FSDP2 replaces the parameters"):
        Optimization(
            layer := nn.Linear(2, 2), [], optimizer=SGD(layer.parameters(), lr=1.0), strategy=FSDP2()
        )

    made = adversarial(strategy=DDP(), accumulate=1)
    assert isinstance(made, AdversarialStep)
    with pytest.raises(ValueError, match=r"is_adaptive: expected accumulate=1 with FSDP2"):
        AdversarialStep(
            tokenizer=made.tokenizer,
            losses=made.losses,
            weights=made.weights,
            adversary=made.adversary,
            optimizer=partial(SGD, lr=1.0),
            accumulate=2,
            strategy=FSDP2(),
        )
    with pytest.raises(ConfigError, match=r"expected one that updates a part .* got Adafactor"):
        reconstruction(EMACodebook, strategy=FSDP2(), accumulate=1, optimizer=Adafactor)
    sharded = reconstruction(LearnedCodebook, strategy=FSDP2(), accumulate=1)
    with pytest.raises(ValueError, match="AlternatingStep calls parts"):
        AlternatingStep(step=sharded, optimizer=partial(SGD, lr=1.0))


def run_rank(rank: int, size: int, *, folder: str, is_quick: bool) -> None:
    if not is_supported():
        with pytest.raises(ConfigError, match=r"expected torch 2\.12 or newer"):
            FSDP2().wrap(nn.Linear(2, 2))
        return
    path = Path(folder) / str(size)
    if is_quick:
        check_refusals()
        check_accumulation()
        check_parts()
        check_kind("adversarial", 1, FSDP2())
        check_kind("proposal", 2, FSDP2())
        check_checkpoints("learned", FSDP2(), path, [FSDP2()])
        return
    check_parts()
    check_optimizers()
    for kind in KINDS:
        check_kind(kind, 1, FSDP2())
        check_checkpoints(kind, FSDP2(), path / "all", [DDP(), FSDP2(shards=2)])
        check_checkpoints(kind, FSDP2(shards=2), path / "copies", [FSDP2()])


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sizes = [int(text) for text in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        work = partial(run_rank, folder=folder, is_quick=not sizes)
        return run_on_ranks(work, *(sizes or [2]))


if __name__ == "__main__":
    sys.exit(main())
