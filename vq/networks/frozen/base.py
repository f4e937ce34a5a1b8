"""Frozen weights: buffers that are in no state dict, so nothing but the class that read them can restore them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class FrozenWeights(nn.Module):
    """A network whose weights are buffers outside the state dict, and which keeps what is in them.

    `.to(device)` moves them and `.double()` converts them, while no optimizer, checkpoint or `.train()` ever touches
    them. In half precision they would be other weights: `.half()` and `.bfloat16()` leave them in float32, in which
    the network then computes. `to_empty`, which gives every other tensor memory without content for a checkpoint to
    fill, leaves them as they are, because no checkpoint holds them. They are read to the CPU also inside
    `torch.device("meta")`.
    """

    def freeze(self, name: str, tensor: Tensor) -> None:
        """Keeps a tensor as a buffer outside the state dict."""
        self.register_buffer(name.replace(".", "_"), tensor, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenWeights":
        before = {
            (module, name): buffer
            for module in self.modules()
            for name, buffer in module.named_buffers(recurse=False)
        }
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for (module, name), old in before.items():
            new = module.get_buffer(name)
            if old.is_meta and not new.is_meta:
                raise RuntimeError(
                    f"{type(self).__name__}: expected frozen weights on a device that holds numbers, got {name!r} on "
                    f"the meta device, where its content is lost; make the network again"
                )
            # Only where `fn` puts a tensor counts, and into which type: its content may be that of any memory.
            kept = torch.promote_types(new.dtype, torch.float32) if new.is_floating_point() else new.dtype
            module.register_buffer(name, old.to(new.device, kept), persistent=False)
        return self
