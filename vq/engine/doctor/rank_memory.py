"""What one rank of a training holds, part by part, when the model is copied and when it is divided."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import Finding, bytes_in_words, ok, warning
from vq.engine.doctor.tracing import Trace
from vq.engine.steps.base import TrainStep
from vq.engine.strategies import DDP, FSDP2, Strategy
from vq.engine.strategies.blocks import blocks_of
from vq.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """The bytes of one rank.

    Attributes:
        parameters: Of the model, its buffers included.
        optimizer: The state of its optimizer, such as moments.
        gradients: Of the model, after the backward pass.
        gathered: The largest block while it is whole, with the next one, which is fetched meanwhile, and its gradient.
        others: Averaged weights, discriminators, and networks of losses.
        activations: The largest number of bytes of anything else during a step; an estimate.
        most: Those of a whole model at the largest moment of a step. It may be less than the sum of all parts, because
            activations are dropped while gradients are made.
    """

    parameters: int
    optimizer: int
    gradients: int
    gathered: int
    others: int
    activations: int
    most: int

    @property
    def total(self) -> int:
        """The bytes at the largest moment, at most."""
        parts = (
            self.parameters, self.optimizer, self.gradients, self.gathered, self.others, self.activations,
        )  # fmt: skip
        return min(sum(parts), self.most)

    def __str__(self) -> str:
        """The parts that are not empty, and their sum."""
        parts = {
            "parameters": self.parameters,
            "optimizer": self.optimizer,
            "gradients": self.gradients,
            "gathered blocks": self.gathered,
            "averages and other networks": self.others,
            "activations, estimated": self.activations,
        }
        shown = ", ".join(f"{name} {bytes_in_words(size)}" for name, size in parts.items() if size)
        return f"at most {bytes_in_words(self.total)} per rank: {shown}"


def rank_memory(step: TrainStep, trace: Trace, strategy: Strategy, num_ranks: int) -> RankMemory:
    """The bytes of one of some ranks.

    Args:
        step: On the meta device, after a step, so that its optimizer has moments.
        trace: What the step takes on one rank with a whole model.
        strategy: How the ranks share the model.
        num_ranks: The number of ranks.

    Raises:
        ConfigError: If this number of ranks cannot divide the model.
    """
    model, optimizer = step.model, step.optimization.optimizer
    state: Mapping[Any, Mapping[str, Any]] = optimizer.inner.state if optimizer.parameters else {}
    part = strategy.part(num_ranks)
    divided = set(strategy.divided(model)) if part < 1 else set()
    sizes = dict.fromkeys(("parameters", "optimizer", "gradients"), 0.0)
    whole = 0
    for parameter in model.parameters():
        kept = part if parameter in divided else 1.0
        moments = _bytes(value for value in state.get(parameter, {}).values() if isinstance(value, Tensor))
        gradient = parameter.nbytes if parameter.requires_grad else 0
        # With several micro-batches, gradients are exchanged after the last one; until then a rank has all of them.
        of_gradient = kept if step.accumulate == 1 else 1.0
        sizes["parameters"] += kept * parameter.nbytes
        sizes["optimizer"] += kept * moments
        sizes["gradients"] += of_gradient * gradient
        whole += parameter.nbytes + moments
    buffers = _bytes(model.buffers())
    averaged = 0 if step.weight_ema is None else _bytes(model.parameters())
    of_averages = averaged * (part if divided else 1.0)
    gradients = _bytes(p for p in model.parameters() if p.requires_grad)
    others = max(0, trace.held - whole - buffers - averaged - gradients)
    return RankMemory(
        parameters=round(sizes["parameters"]) + buffers,
        optimizer=round(sizes["optimizer"]),
        gradients=round(sizes["gradients"]),
        gathered=3 * _largest_group(model) if divided else 0,
        others=others + round(of_averages),
        activations=trace.activations,
        most=trace.peak,
    )


def check_ranks(case: Case) -> Iterator[Finding]:
    """The memory of one rank with each strategy, if several ranks would train."""
    if case.world.ranks == 1 or case.step.error is not None or case.trace.error is not None:
        return
    step: TrainStep = case.step.value.step
    own = step.optimization.strategy
    for strategy in (DDP(), own if isinstance(own, FSDP2) else FSDP2()):
        place = f"memory with {type(strategy).__name__}"
        try:
            needed = rank_memory(step, case.trace.value, strategy, case.world.ranks)
            shards = round(1 / strategy.part(case.world.ranks))
        except ConfigError as error:
            yield warning(place, *str(error).split("; ", 1))
            continue
        yield ok(place, f"{shards} shards, {needed}" if shards > 1 else str(needed))


def _largest_group(model: nn.Module) -> int:
    """The bytes of the parameters of the largest block, or of all that are in no block."""
    blocks = [list(block.parameters()) for block in blocks_of(model)]
    inside = {parameter for block in blocks for parameter in block}
    return max(map(_bytes, [*blocks, [p for p in model.parameters() if p not in inside]]))


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
