"""The content of one checkpoint: how large it will be, whether it is finite, and the manifest that describes it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vq import __version__, distributed
from vq.engine.loop.checkpoint_writer import HostMemory, tensors_in
from vq.engine.loop.resuming import ARGUMENTS
from vq.engine.steps.base import TrainStep
from vq.engine.strategies.shards import gathered
from vq.files import fsync, sha256_of
from vq.tokenizers.checkpoint import EMA_WEIGHTS, WEIGHTS, save_weights
from vq.tokenizers.manifest import MANIFEST

TRAIN_STATE = "train_state.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a checkpoint holds of a training step.

    Attributes:
        step: Number of optimizer steps taken.
        weights: Of the model.
        average: The averaged weights; empty if the step keeps none.
        state: Of the train step: what the next step depends on besides the weights.
    """

    step: int
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    state: Mapping[str, object]

    @classmethod
    def of(cls, train_step: TrainStep, step: int) -> "Content":
        """The present content; its tensors are those of the step, not copies.

        What is divided among ranks is gathered: every rank must then call it, and rank 0 has the content.
        """
        average = {} if train_step.weight_ema is None else train_step.weight_ema.average
        state, weights = train_step.state_dict(), train_step.model.state_dict()
        if train_step.optimization.strategy.is_sharded:
            weights, average, state = (gathered(tree) for tree in (weights, average, state))
        return cls(step=step, weights=weights, average=average, state=state)

    def not_finite(self) -> str:
        """What is NaN or infinite, such as `weight decoder.conv.bias`; empty if everything is finite."""
        for kind, tree in (
            ("weight", self.weights),
            ("averaged weight", self.average),
            ("state of the optimizer", {"train_step": self.state}),
        ):
            if name := not_finite(tree):
                return f"{kind} {name}"
        return ""

    def copied(self, memory: HostMemory) -> "Content":
        """The same content in memory of the host, which the next step does not change."""
        weights, average, state = memory.copy((self.weights, self.average, self.state))
        return replace(self, weights=weights, average=average, state=state)

    def write(self, folder: Path, *, config: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        """Writes all files into a new or empty folder, the manifest last, and flushes them to the disk."""
        folder.mkdir(exist_ok=True)
        save_weights(self.weights, folder / WEIGHTS, config)
        if self.average:
            save_weights(self.average, folder / EMA_WEIGHTS, config)
        torch.save({"step": self.step, "train_step": self.state}, folder / TRAIN_STATE)
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (folder / ARGUMENTS).write_text(json.dumps(arguments, indent=2), encoding="utf-8")
        write_manifest(folder, self.step)


def write_manifest(checkpoint: Path, step: int) -> None:
    """Describes every file of a finished checkpoint, and flushes all of them to the disk."""
    files = sorted(checkpoint.iterdir())
    manifest = {
        "step": step,
        "world_size": distributed.world_size(),
        "versions": {"vq": __version__, "torch": torch.__version__},
        "files": {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files},
    }
    (checkpoint / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for file in checkpoint.iterdir():
        fsync(file)
    fsync(checkpoint)


def estimated_bytes(train_step: TrainStep) -> int:
    """How large a checkpoint will be: weights, averages, discriminators, and the moments, before these exist."""
    weights = sum(tensor.nbytes for tensor in train_step.model.state_dict().values())
    average = {} if train_step.weight_ema is None else train_step.weight_ema.average
    own = {id(parameter) for parameter in train_step.model.parameters()}
    moments, others = 0, dict[int, int]()
    for optimizer in _optimizers(train_step, set()):
        defaults = optimizer.defaults
        num_moments = (
            2 + bool(defaults.get("amsgrad")) if "betas" in defaults else int(bool(defaults.get("momentum")))
        )
        moments += num_moments * sum(p.nbytes for group in optimizer.param_groups for p in group["params"])
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        others |= {id(p): p.nbytes for p in trained if id(p) not in own}  # such as those of a discriminator
    return weights + sum(tensor.nbytes for tensor in average.values()) + moments + sum(others.values())


def _optimizers(part: object, seen: set[int]) -> Iterator[Optimizer]:
    """The optimizers that a step, or a step inside it, holds."""
    for value in vars(part).values():
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Optimizer):
            yield value
        elif type(value).__module__.startswith("vq.engine."):
            yield from _optimizers(value, seen)


def not_finite(tree: object) -> str:
    """The name of the first tensor in nested dicts and lists that holds NaN or infinity; empty if none does."""
    found = [
        (name, tensor.detach())
        for name, tensor in tensors_in(tree)
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel()
    ]
    # One transfer per device, not per tensor.
    for device in {tensor.device for _, tensor in found}:
        own = [(name, tensor) for name, tensor in found if tensor.device == device]
        # A finite sum has finite terms, and is quickly computed; a sum of finite terms may overflow.
        are_finite = torch.stack([tensor.sum().isfinite() for _, tensor in own]).tolist()
        for (name, tensor), is_finite in zip(own, are_finite, strict=True):
            if not is_finite and not tensor.isfinite().all():
                return name
    return ""
