"""Counts the memory and the arithmetic of a training step by running it on the meta device.

Tensors on the meta device have a shape and a type, but no values. A step that runs on them creates and drops the same
tensors as on any other device, so the largest number of bytes that exist at one time is known without any memory.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vq.engine.steps.base import TrainStep
from vq.generators import Generator

AUTOCAST = 0.8
"""The activations with bfloat16 over those in float32; measured on the CPU: 0.6 to 0.9, because norms stay float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a training step takes.

    Attributes:
        held: Bytes between two steps: weights, averages, frozen networks, the moments of the optimizers, and the
            gradients of the step before, which the next step drops.
        peak: The largest number of bytes during a step, in float32.
        activations: The largest number of bytes during a step that are neither held nor gradients of the model.
        flops: Floating-point operations of a step on one rank.
        batch: Samples of a micro-batch, of which the step has `accumulate`.
    """

    held: int
    peak: int
    activations: int
    flops: int
    batch: int

    def bytes(self, *, autocast: bool) -> int:
        """The largest number of bytes during a step."""
        return self.held + round((self.peak - self.held) * (AUTOCAST if autocast else 1.0))


def trace_of(step: TrainStep, config: Mapping[str, Any], loader: Any, *, batch: int) -> Trace:
    """Runs two steps on the meta device, of which the second has the moments of the optimizers.

    Args:
        step: A step on the meta device; it is changed.
        config: The config, for the size of a sample if there are no data.
        loader: The training data, for the size of a sample; None if they are not there.
        batch: Samples of a micro-batch.
    """
    one: Any = meta_batch(step, config, loader, batch)
    number = 10**7  # late enough for a discriminator to have begun
    counter = Counter()
    with _without_autocast(), counter:
        step([one] * step.accumulate, number)
        held, before = counter.now, counter.flops
        step.model.zero_grad()
        counter.beside, counter.activations = counter.now, 0
        with _gradients_beside(step.model, counter):
            step([one] * step.accumulate, number)
    return Trace(
        held=held,
        peak=counter.peak,
        activations=counter.activations,
        flops=counter.flops - before,
        batch=batch,
    )


@contextmanager
def _gradients_beside(model: nn.Module, counter: "Counter") -> Iterator[None]:
    """Inside, the gradients of a model do not count as activations."""
    seen = set()

    def note(parameter: Tensor) -> None:
        if id(parameter) not in seen and parameter.grad is not None:
            seen.add(id(parameter))
            counter.beside += parameter.grad.nbytes

    hooks = [p.register_post_accumulate_grad_hook(note) for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def meta_batch(step: TrainStep, config: Mapping[str, Any], loader: Any, batch: int) -> dict[str, Any]:
    """A micro-batch on the meta device, with the shapes of the training data."""
    sample: dict[str, Any] = {}
    if loader is not None:
        sample = {key: v for key, v in loader.fixed_batch(1).items() if isinstance(v, Tensor)}
    elif isinstance(step.model, Generator):
        model = step.model
        stack = (model.num_indices,) if model.num_indices > 1 else ()
        sample = {"indices": torch.empty(1, *model.grid, *stack, dtype=torch.int64)}
    else:
        side = output_side(config["train_data"].get("transforms") or [])
        channels = int(getattr(step.model, "image_channels", 3))
        sample = {"image": torch.empty(1, channels, side, side, dtype=torch.uint8)}
    sample.setdefault("label", torch.empty(1, dtype=torch.int64))
    on_meta = {k: torch.empty(batch, *v.shape[1:], dtype=v.dtype, device="meta") for k, v in sample.items()}
    return {**on_meta, "key": [""] * batch, "undecodable": []}


def output_side(transforms: Sequence[Mapping[str, Any]]) -> int:
    """The side of the images that the nodes of some transforms give, from the last one that has a size."""
    sizes = [node["size"] for node in transforms if isinstance(node.get("size"), int)]
    if not sizes:
        raise ValueError("the size of the images is not known, because there are none")
    return int(sizes[-1])


class Counter(TorchDispatchMode):
    """Counts the bytes of all tensors that exist inside the context and took part in an operation there.

    Attributes:
        now: The bytes of the tensors that exist now.
        peak: The largest value of `now` so far.
        beside: The bytes that are no activations.
        activations: The largest value of `now - beside` so far.
        flops: Floating-point operations of matrix products, convolutions and attention so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.now = self.peak = self.beside = self.activations = self.flops = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation, and counts it and the storages of its arguments and results."""
        kwargs = dict(kwargs or {})
        for value in tree_leaves((args, kwargs)):
            self._count(value)
        is_number = function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta
        result = _any_number(args[0]) if is_number else function(*args, **kwargs)
        for value in tree_leaves(result):
            self._count(value)
        if (formula := flop_registry.get(function._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result

    def _count(self, value: Any) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        if (key := storage._cdata) in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        self.activations = max(self.activations, self.now - self.beside)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def _any_number(tensor: Shaped[Tensor, ""]) -> bool | int | float:
    """A value for a tensor that has none: checks of ranges pass, and conditions are as in ordinary steps."""
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.is_floating_point() else 1


@contextmanager
def _without_autocast() -> Iterator[None]:
    """Inside, `torch.autocast` does nothing for the meta device, for which torch refuses it."""
    autocast = torch.autocast

    def chosen(device_type: str, *args: Any, **kwargs: Any) -> Any:
        is_meta = device_type == "meta"
        return autocast("cpu", enabled=False) if is_meta else autocast(device_type, *args, **kwargs)

    with patch.object(torch, "autocast", chosen):
        yield
