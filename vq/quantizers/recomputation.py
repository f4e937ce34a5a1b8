"""Records of forwards that activation checkpointing will run again in the backward."""

import weakref
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

MOST_RECORDS = 8
"""Maximum number of records per quantizer of forwards that have not been recomputed yet."""

_records: "weakref.WeakKeyDictionary[nn.Module, list[Record]]" = weakref.WeakKeyDictionary()


@dataclass(eq=False)
class Record:
    """Holds what a recomputation needs from the forward that it repeats.

    Args:
        shape: Shape of `z`.
        fingerprint: Two sums over `z`, which identify the forward.
        codes: For each part, in order, the codes that it searched; None if they cannot have changed since.
        reduced: Results of the collectives in the losses.
        draws: States of the random generators after each draw of a learning part.
        is_repeated: Whether the forward has been recomputed.
    """

    shape: torch.Size
    fingerprint: Float[Tensor, "2"]
    codes: list[Float[Tensor, "_ _"] | None] = field(default_factory=list)
    reduced: list[Shaped[Tensor, "..."]] = field(default_factory=list)
    draws: list[tuple[UInt8[Tensor, "_"], UInt8[Tensor, "_"] | None]] = field(default_factory=list)
    is_repeated: bool = False

    def pass_draws(self, number: int, device: torch.device, *, is_replay: bool) -> None:
        """Records the states of the generators of the CPU and of `device`; in a replay, restores them.

        Args:
            number: Number of the draw within the forward.
            device: Device of the vectors.
            is_replay: Whether this is a recomputation.
        """
        own = None if device.type == "cpu" else torch.get_device_module(device)
        if not is_replay:
            self.draws.append((torch.get_rng_state(), None if own is None else own.get_rng_state(device)))
            return
        general, special = self.draws[number]
        torch.set_rng_state(general)
        if own is not None:
            own.set_rng_state(special, device)


def is_in_backward() -> bool:
    """Returns whether this thread is running a backward; a forward is then a recomputation."""
    return torch._C._current_graph_task_id() != -1


# A custom operator, because a compiled forward runs no other Python code. It cannot repeat an earlier forward, but it
# can raise.
@torch.library.custom_op("vq::refuse_recomputation", mutates_args=(), schema="(Tensor like) -> Tensor")
def refuse_recomputation(like: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Returns 0, which must be added to the loss.

    Args:
        like: Tensor that gives dtype and device.

    Raises:
        RuntimeError: If this thread is running a backward.
    """
    if is_in_backward():
        raise RuntimeError(
            "activation checkpointing: expected a quantizer that is not compiled, got a compiled training forward, "
            "which would learn twice; leave the quantizer out of torch.compile or out of the checkpoint"
        )
    return like.new_zeros(())


@refuse_recomputation.register_fake
def _(like: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    return like.new_zeros(())


def new_record(z: Shaped[Tensor, "*shape"]) -> Record | None:
    """Returns a record for this forward, or None if it will not be run again.

    `torch.utils.checkpoint` runs the first forward without gradient or, in its other form, inside of its hooks.
    """
    if torch.compiler.is_compiling():
        return None
    if torch.is_grad_enabled() and torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        return None
    return Record(z.shape, _fingerprint(z))


def keep_record(quantizer: nn.Module, record: Record) -> None:
    """Stores the record of a forward until it has been recomputed and a later forward is stored."""
    others = [other for other in _records.get(quantizer, ()) if not other.is_repeated]
    _records[quantizer] = [*others, record][-MOST_RECORDS:]


def record_to_repeat(quantizer: nn.Module, z: Shaped[Tensor, "*shape"]) -> Record:
    """Returns the record of the forward of these vectors.

    Raises:
        RuntimeError: If there is none.
    """
    # Of several forwards of equal vectors take the latest that was not repeated: a backward starts from the end.
    found = [record for record in reversed(_records.get(quantizer, [])) if record.shape == z.shape]
    found.sort(key=lambda record: record.is_repeated)
    if len(found) > 1:
        here = _fingerprint(z)
        distances = [float((record.fingerprint - here).abs().max()) for record in found]
        nearest = min(distances)
        # A recomputation differs by rounding at most; another batch differs by more.
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
