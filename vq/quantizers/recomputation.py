"""What a quantizer remembers of a forward that activation checkpointing will run again in the backward."""

import weakref
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

MOST_RECORDS = 8
"""How many forwards whose recomputation has not come yet are remembered, of each quantizer."""

_records: "weakref.WeakKeyDictionary[nn.Module, list[Record]]" = weakref.WeakKeyDictionary()


@dataclass(eq=False)
class Record:
    """What a recomputation needs of the forward that it repeats.

    Args:
        shape: That of `z`.
        fingerprint: Two sums over `z`, by which forwards are told apart.
        codes: For each part, in order, the codes that it searched, if they may have changed since.
        reduced: The results of the collectives in the losses.
        draws: The states of the random generators after each time that what learns has drawn.
        is_repeated: Whether there has been a recomputation.
    """

    shape: torch.Size
    fingerprint: Float[Tensor, "2"]
    codes: list[Tensor | None] = field(default_factory=list)
    reduced: list[Tensor] = field(default_factory=list)
    draws: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)
    is_repeated: bool = False

    def pass_draws(self, number: int, device: torch.device, *, is_replay: bool) -> None:
        """Notes the states of the generators of the CPU and of `device`, or sets them to those of the record."""
        own = None if device.type == "cpu" else torch.get_device_module(device)
        if not is_replay:
            self.draws.append((torch.get_rng_state(), None if own is None else own.get_rng_state(device)))
            return
        general, special = self.draws[number]
        torch.set_rng_state(general)
        if own is not None:
            own.set_rng_state(special, device)


def is_in_backward() -> bool:
    """Whether this thread runs a backward: a forward is then a recomputation."""
    return torch._C._current_graph_task_id() != -1


# An operator, because a compiled forward runs no other Python: it cannot repeat an earlier one, only refuse to.
@torch.library.custom_op("vq::refuse_recomputation", mutates_args=(), schema="(Tensor like) -> Tensor")
def refuse_recomputation(like: Tensor) -> Tensor:
    """Zero, to be added to the loss.

    Raises:
        RuntimeError: Inside of a backward.
    """
    if is_in_backward():
        raise RuntimeError(
            "activation checkpointing: expected a quantizer that is not compiled, got a compiled training forward, "
            "which would learn twice; leave the quantizer out of torch.compile or out of the checkpoint"
        )
    return like.new_zeros(())


@refuse_recomputation.register_fake
def _(like: Tensor) -> Tensor:
    return like.new_zeros(())


def new_record(z: Shaped[Tensor, "*shape"]) -> Record | None:
    """A record for this forward, or None if it will not be run again.

    `torch.utils.checkpoint` runs the first forward without gradient or, in its other form, inside of its hooks.
    """
    if torch.compiler.is_compiling():
        return None
    if torch.is_grad_enabled() and torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        return None
    return Record(z.shape, _fingerprint(z))


def keep_record(quantizer: nn.Module, record: Record) -> None:
    """Remembers a forward until a later one begins after its recomputation."""
    others = [other for other in _records.get(quantizer, ()) if not other.is_repeated]
    _records[quantizer] = [*others, record][-MOST_RECORDS:]


def record_to_repeat(quantizer: nn.Module, z: Shaped[Tensor, "*shape"]) -> Record:
    """The record of the forward of these vectors.

    Raises:
        RuntimeError: If there is none.
    """
    # Of several with the same vectors the latest that has not been repeated: a backward goes from the end.
    found = [record for record in reversed(_records.get(quantizer, [])) if record.shape == z.shape]
    found.sort(key=lambda record: record.is_repeated)
    if len(found) > 1:
        here = _fingerprint(z)
        distances = [float((record.fingerprint - here).abs().max()) for record in found]
        nearest = min(distances)
        # A network that repeats itself but for rounding is near; another batch is not.
        found = [found[distances.index(nearest)]] if nearest <= 1e-3 * float(here[1]) else []
    if not found:
        raise RuntimeError(
            f"{type(quantizer).__name__}: expected a training forward inside of a backward to repeat an earlier one "
            f"(activation checkpointing), got vectors of the shape {tuple(z.shape)} that none of the last "
            f"{MOST_RECORDS} checkpointed forwards had; run the backward before more forwards, or leave the "
            f"quantizer out of the checkpoint"
        )
    found[0].is_repeated = True
    return found[0]


@torch.no_grad()
def _fingerprint(z: Shaped[Tensor, "*shape"]) -> Float[Tensor, "2"]:
    finite = z.nan_to_num(0.0, 0.0, 0.0).double()
    return torch.stack([finite.sum(), finite.abs().sum()])
