"""What is examined: a config, its run folder, the machine, and the parts that the checks share."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from vq.config import trained_section
from vq.data import FeatureLoader, ImageLoader, TokenLoader
from vq.engine.doctor.building import FAULTS, meta_step
from vq.engine.doctor.images import sample_of
from vq.engine.doctor.tracing import Trace, trace_of
from vq.engine.steps.base import TrainStep
from vq.engine.steps.tuning import Tuning
from vq.registry import build

Tree = Mapping[str, Any]
SAVED_EVERY = VALIDATED_EVERY = 1000  # for a page without these sections


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes that would train, and the cores of this machine.

    Attributes:
        ranks: Processes over all machines, as torchrun says in WORLD_SIZE.
        local_ranks: Processes on this machine.
        cores: CPU cores that this process may use.
    """

    ranks: int = 1
    local_ranks: int = 1
    cores: int = 1

    @classmethod
    def here(cls) -> "World":
        """Reads the environment of this process."""
        ranks, local = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(
            ranks=int(ranks) if ranks.isdecimal() else 1,
            local_ranks=int(local) if local.isdecimal() else 1,
            cores=cores,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line decides, as in `vq train`.

    Attributes:
        device: `cuda`, `cpu` or None for CUDA if it is available.
        autocast: Whether the networks run in bfloat16.
        seed: The base seed, if it is given.
        auto_resume: Whether the newest valid checkpoint of the run would be continued.
        load_from: A checkpoint folder to continue from.
        wandb: Whether the run is logged to Weights & Biases.
        weights: Weight files that are loaded into the model before a new training.
        allow_missing: Regular expression of the names that these files may lack.
        allow_unexpected: Regular expression of the names that the model may lack.
        tuning: Memory layout and compilation.
    """

    device: str | None = None
    autocast: bool = False
    seed: int | None = None
    auto_resume: bool = False
    load_from: str | None = None
    wandb: bool = False
    weights: Sequence[str] = ()
    allow_missing: str = ""
    allow_unexpected: str = ""
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was built, or the error with which that failed; a loader whose set cannot be used has both."""

    value: Any = None
    error: Exception | None = None


@dataclass(kw_only=True)
class Case:
    """What is examined. Parts are built at their first use, and shared by the checks.

    Attributes:
        tree: The resolved config; empty to examine the machine alone.
        run: The folder that the training would write to; None if it is not known.
        options: What the command line decides.
        world: The processes and cores.
    """

    tree: Tree
    run: Path | None = None
    options: Options = field(default_factory=Options)
    world: World = field(default_factory=World.here)
    _samples: dict[str, Part] = field(default_factory=dict, init=False, repr=False)

    @property
    def device(self) -> str:
        """The kind of device that the training would use."""
        return self.options.device or ("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def trained(self) -> str:
        """The section that is trained."""
        return trained_section(self.tree)

    @property
    def max_steps(self) -> int:
        """The steps of the whole run."""
        return int(self.tree["trainer"]["max_steps"])

    @property
    def saves_every(self) -> int:
        """The steps between checkpoints."""
        return int(self.tree["checkpointer"].get("every", SAVED_EVERY))

    @property
    def validates_every(self) -> int:
        """The steps between validations."""
        return int(self.tree["evaluator"].get("every", VALIDATED_EVERY))

    @property
    def accumulate(self) -> int:
        """Micro-batches of a step."""
        step = self.tree["train_step"]
        return int(step.get("accumulate") or step.get("step", {}).get("accumulate") or 1)

    @property
    def micro_batch(self) -> int:
        """Samples of a micro-batch on one rank, at least 1."""
        return max(1, int(self.tree["train_data"]["batch_size"]) // (self.world.ranks * self.accumulate))

    @cached_property
    def train_data(self) -> Part:
        """The loader of the section `train_data`."""
        return _loader(self.tree, "train_data")

    @cached_property
    def val_data(self) -> Part:
        """The loader of the section `val_data`."""
        return _loader(self.tree, "val_data")

    def sample(self, name: str) -> Part:
        """What a random sample of the images of a section shows: a `Sample`; it is read once."""
        if name not in self._samples:
            loader: Any = self.loaders()[name]
            self._samples[name] = _attempt(lambda: sample_of(loader, is_training=name == "train_data"))
        return self._samples[name]

    def loaders(self) -> dict[str, ImageLoader | TokenLoader | FeatureLoader]:
        """The loaders whose sets are there, by section."""
        parts = {"train_data": self.train_data, "val_data": self.val_data}
        return {name: part.value for name, part in parts.items() if part.value is not None}

    @cached_property
    def step(self) -> Part:
        """The training step on the meta device, which holds no values and computes none."""
        return _attempt(lambda: meta_step(self.tree))

    @cached_property
    def trace(self) -> Part:
        """What two steps on the meta device take: a `Trace`."""

        def traced() -> Trace:
            if self.step.error is not None:
                raise self.step.error
            step: TrainStep = self.step.value.step
            return trace_of(step, self.tree, self.train_data.value, batch=self.micro_batch)

        return _attempt(traced)


def _loader(tree: Tree, name: str) -> Part:
    try:
        loader = build(tree[name], path=name)
    except FAULTS as error:
        return Part(error=error)
    try:
        loader.check()
    except FAULTS as error:
        return Part(loader if _is_there(loader) else None, error)
    return Part(loader)


def _is_there(loader: Any) -> bool:
    """Whether the set of a loader can be listed, although a few of its samples cannot be used."""
    try:
        return len(loader.dataset) > 0
    except FAULTS:
        return False


def _attempt(make: Callable[[], Any]) -> Part:
    try:
        return Part(make())
    except FAULTS as error:
        return Part(error=error)
