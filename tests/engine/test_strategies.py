"""How the ranks share a model; what needs several ranks is in tests/distributed/fsdp_ranks.py."""

from functools import partial
from typing import Any

import pytest
import torch
from commands import TINY
from torch import nn
from torch.optim import SGD

from vq import config
from vq.engine import FSDP2, ProbeStep, ReconstructionStep
from vq.engine.doctor.case import Case, Options, World
from vq.engine.doctor.findings import Finding, Level
from vq.engine.doctor.memory import check_memory
from vq.engine.steps.schedules import Constant
from vq.engine.strategies.activations import checkpoint_blocks
from vq.engine.strategies.blocks import blocks_of
from vq.errors import ConfigError
from vq.generators import DecoderTransformer, TransformerGenerator
from vq.losses import L1Loss
from vq.networks import CNNDecoder, CNNEncoder
from vq.probes import LinearProbe, PooledPixels
from vq.quantizers import EMACodebook, KMeansInit, LearnedCodebook, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import ImageTokenizer


class SyncedBlock(nn.Module):
    """A block with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)


def test_one_process_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected several ranks .* got one process; start .* torchrun"):
        FSDP2().wrap(nn.Linear(2, 2))


def test_shards_of_one_rank_are_refused() -> None:
    with pytest.raises(ValueError, match="shards of at least 2"):
        FSDP2(shards=1)


def test_a_probe_refuses_it() -> None:
    probe = LinearProbe(features=PooledPixels(patch_size=1), num_classes=3)
    with pytest.raises(ValueError, match=r"ProbeStep calls parts .* FSDP2 .* expected DDP"):
        ProbeStep(probe=probe, optimizer=partial(SGD, lr=1.0), schedule=Constant(), strategy=FSDP2())


def test_blocks_hold_most_of_a_network_and_nothing_of_a_quantizer() -> None:
    network: dict[str, Any] = {"base_width": 8, "multipliers": (1, 2), "num_blocks": 1}
    tokenizer = ImageTokenizer(
        encoder=CNNEncoder(out_channels=8, **network),
        quantizer=VectorQuantizer(codebook=LearnedCodebook(size=16, dim=4)),
        decoder=CNNDecoder(in_channels=8, **network),
    )
    transformer = DecoderTransformer(width=32, depth=3, num_heads=2)
    generator = TransformerGenerator(transformer=transformer, vocabulary_size=8, num_classes=3, grid=(4, 4))
    quantizer = {id(p) for p in tokenizer.quantizer.parameters()}
    for model in (tokenizer, generator):
        inside = [p for block in blocks_of(model) for p in block.parameters()]
        assert len({id(p) for p in inside}) == len(inside)  # no block contains another one
        assert sum(p.numel() for p in inside) > 0.8 * sum(p.numel() for p in model.parameters())
        assert not {id(p) for p in inside} & quantizer
    assert blocks_of(generator) == list(transformer.blocks)
    assert not blocks_of(tokenizer.quantizer)


NETWORK: dict[str, Any] = {"base_width": 8, "multipliers": (1, 2), "num_blocks": 1}


def moved(*, checkpoint_activations: bool) -> tuple[dict[str, torch.Tensor], int]:
    """The state after three steps in two micro-batches, and how often the layers of a block were called."""
    torch.manual_seed(0)
    codebook = EMACodebook(size=16, dim=4, init=KMeansInit(), revival=ReplaceDeadCodes())
    tokenizer = ImageTokenizer(
        encoder=CNNEncoder(out_channels=8, **NETWORK),
        quantizer=VectorQuantizer(codebook=codebook),
        decoder=CNNDecoder(in_channels=8, **NETWORK),
    )
    step = ReconstructionStep(
        tokenizer=tokenizer.train(),
        losses={"l1": L1Loss()},
        weights={"l1": 1.0, "quantizer": 1.0},
        optimizer=partial(SGD, lr=0.1),
        schedule=Constant(),
        accumulate=2,
        checkpoint_activations=checkpoint_activations,
    )
    calls = []
    next(blocks_of(tokenizer)[0].children()).register_forward_hook(lambda *_: calls.append(1))
    for number in range(3):
        image = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
        halves: Any = [{"image": image[:2]}, {"image": image[2:]}]
        step(halves, number)
    return step.model.state_dict(), len(calls)


def test_checkpointed_activations_give_the_same_gradients_and_codebooks() -> None:
    (plain, once), (checkpointed, twice) = (moved(checkpoint_activations=on) for on in (False, True))
    assert (once, twice) == (6, 12)
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        assert torch.equal(value, checkpointed[name]), name


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "without any; leave it out"),
        (nn.Sequential(nn.Sequential(nn.Linear(2, 2)), SyncedBlock()), "without batch norm"),
    ],
)
def test_models_whose_activations_cannot_be_checkpointed_are_refused(model: nn.Module, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        checkpoint_blocks(model)


def test_a_compiled_network_is_refused() -> None:
    model = nn.Sequential(SyncedBlock())
    model.compile()
    with pytest.raises(ConfigError, match="not compiled"):
        checkpoint_blocks(model)


def memory_of(step: dict[str, Any], ranks: int) -> list[Finding]:
    tree = config.load(TINY).to_dict()
    tree["train_step"] |= step
    return list(
        check_memory(Case(tree=tree, options=Options(device="cpu"), world=World(cores=4, ranks=ranks)))
    )


@pytest.mark.slow
def test_the_doctor_counts_the_memory_of_a_rank() -> None:
    """Of weights, average and two moments, 4 ranks hold a quarter each; gradients count whole."""
    strategies: tuple[dict[str, Any], ...] = ({}, {"strategy": {"type": "FSDP2"}})
    found = [memory_of({"accumulate": 2, **strategy}, 4) for strategy in strategies]
    whole, part = (float(line[0].what.split("(")[1].split(" ")[0]) for line in found)
    assert part / whole == pytest.approx((4 / 4 + 1) / 5, abs=0.01)


def test_the_doctor_refuses_to_divide_for_one_process() -> None:
    (finding,) = memory_of({"strategy": {"type": "FSDP2"}}, 1)
    assert (finding.level, finding.place) == (Level.TROUBLE, "train_step.strategy")
    assert "got one process" in finding.what
    assert "torchrun" in finding.cure
