"""Run by test_fsdp.py: every kind of network takes steps under FSDP2, with checkpointed activations, as under DDP.

A step of float64 and SGD hands differences on without enlarging them. Afterwards the divided model encodes, decodes or
samples as in a validation.
"""

import copy
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from contract.network_cases import GENERATORS, SIDE, TOKENIZERS
from forked_ranks import run_on_ranks
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD

from vq import distributed
from vq.engine import DDP, FSDP2, ProposalStep, ReconstructionStep, TrainStep
from vq.engine.steps.schedules import Constant
from vq.engine.strategies import Strategy
from vq.engine.strategies.shards import gathered
from vq.generators import Generator
from vq.losses import L1Loss
from vq.tokenizers import Tokenizer


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in model.modules())


def step_of(model: nn.Module, strategy: Strategy) -> TrainStep:
    shared: dict[str, Any] = {
        "optimizer": partial(SGD, lr=0.01),
        "schedule": Constant(),
        "weight_ema": 0.9,
        "strategy": strategy,
        "checkpoint_activations": strategy.is_sharded and not _has_batch_norm(model),
    }
    if isinstance(model, Generator):
        return ProposalStep(generator=model, tokenizer=None, **shared)
    assert isinstance(model, Tokenizer)
    weights = {"l1": 1.0, "quantizer": 1.0}
    return ReconstructionStep(tokenizer=model, losses={"l1": L1Loss()}, weights=weights, **shared)


def batch_of(model: nn.Module, number: int) -> dict[str, Tensor]:
    numbers = torch.Generator().manual_seed(number + 10 * distributed.rank())
    if not isinstance(model, Generator):
        return {"image": torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=numbers, dtype=torch.uint8)}
    stack = (model.num_indices,) if model.num_indices > 1 else ()
    indices = torch.randint(model.vocabulary_size, (2, *model.grid, *stack), generator=numbers)
    return {"indices": indices, "label": torch.tensor([0, 2])}


def used(step: TrainStep) -> Tensor:
    """What the model returns in a validation."""
    model: Any = step.model.eval()
    with torch.no_grad(), step.optimization.strategy.whole(model):
        if isinstance(model, Generator):
            drawn: Tensor = model.generate(torch.tensor([0, 2]), seeds=torch.tensor([1, 2]), guidance=1.5)
            return drawn
        decoded = model.decode(model.encode(batch_of(model, 9)["image"]))
        return torch.cat([decoded, model.bypass(torch.ones(1, 3, SIDE, SIDE).double())])


def check(name: str, make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().double().train()
    steps = []
    for strategy in (DDP(), FSDP2()):
        step = step_of(copy.deepcopy(model), strategy)
        used(step)  # before the first step, as the trainer does to check the validation
        step.model.train()
        for number in range(2):
            torch.manual_seed(number)
            step([batch_of(model, number)], number)
        results = used(step)
        step.model.train()
        torch.manual_seed(5)
        step([batch_of(model, 5)], 2)
        steps.append((gathered(dict(step.model.state_dict())), results))
    (plain, expected), (divided, found) = steps
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0, msg=lambda m: f"{name}: results: {m}")
    if distributed.rank() == 0:
        for key, value in plain.items():
            torch.testing.assert_close(
                divided[key], value, atol=1e-9, rtol=1e-7, msg=lambda m, k=key: f"{name}: {k}: {m}"
            )


def run_rank(rank: int, size: int) -> None:
    chosen = sys.argv[1:]
    for name, make in (TOKENIZERS | GENERATORS).items():
        if not chosen or name in chosen:
            check(name, make)


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return run_on_ranks(run_rank, 2)


if __name__ == "__main__":
    sys.exit(main())
