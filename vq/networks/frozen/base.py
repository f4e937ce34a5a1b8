"""The base class of networks with frozen weights."""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Shaped
from torch import Tensor, nn


class FrozenWeights(nn.Module):
    """A network whose weights are buffers outside the state dict.

    `.to(device)` moves the weights and `.double()` converts them, but no optimizer, checkpoint or `.train()` changes
    them. `.half()` and `.bfloat16()` leave them in float32, because rounding would change their values; the network
    then computes in float32. `to_empty` leaves them unchanged, because no checkpoint could restore them. Subclasses
    read them to the CPU, even inside `torch.device("meta")`.
    """

    def freeze(self, name: str, tensor: Shaped[Tensor, "*shape"]) -> None:
        """Registers a tensor as a buffer outside the state dict.

        Args:
            name: The name of the weight; the buffer's name has `_` for each dot.
            tensor: The weight.
        """
        self.register_buffer(name.replace(".", "_"), tensor, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenWeights":
        before = {
            (module, name): buffer
            for module in self.modules()
            for name, buffer in module.named_buffers(recurse=False)
        }
        cast("Any", super())._apply(fn, recurse)
        for (module, name), old in before.items():
            new = module.get_buffer(name)
            if old.is_meta and not new.is_meta:
                raise RuntimeError(
                    f"{type(self).__name__}: expected frozen weights on a device that stores values, got {name!r} on "
                    f"the meta device, where its values are lost; construct the network again"
                )
            # Only the device and dtype of `new` are used: after `to_empty` its values are uninitialized memory.
            kept = torch.promote_types(new.dtype, torch.float32) if new.is_floating_point() else new.dtype
            module.register_buffer(name, old.to(new.device, kept), persistent=False)
        return self
