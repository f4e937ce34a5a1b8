"""Faster linear layers on a CPU for batches of a few rows, from weights in a packed layout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def packed_weights(network: nn.Module, *, rows: int) -> Iterator[None]:
    """A context in which a network's linear layers on a CPU use a copy of their weights in oneDNN's packed layout.

    Sampling one token per step multiplies matrices with a few rows, for which `nn.Linear` takes about twice as long on
    an AMD CPU. Making the copy takes about as long as ten steps, and as much memory as the weights. Results differ by
    rounding. Layers in float32 are packed, and layers in bfloat16 if the CPU has instructions for it; all others stay
    as they are.

    Args:
        network: The network. Its weights must not change inside the context.
        rows: The number of rows of the inputs.

    Example:
        >>> layer = nn.Linear(8, 4)
        >>> x = torch.ones(2, 8)
        >>> with torch.no_grad(), packed_weights(layer, rows=2):
        ...     packed = layer(x)
        >>> torch.allclose(packed, layer(x), atol=1e-6)
        True
    """
    layers = [layer for layer in network.modules() if type(layer) is nn.Linear and _can_be_packed(layer)]
    try:
        for layer in layers:
            layer.forward = _packed(layer, rows)  # type: ignore[method-assign, assignment]  # restored below
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _can_be_packed(layer: nn.Linear) -> bool:
    dtype = layer.weight.dtype
    if layer.weight.device.type != "cpu" or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    has_bfloat16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or bool(has_bfloat16)


def _packed(layer: nn.Linear, rows: int) -> Callable[[Tensor], Tensor]:
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows), layer.bias

    def forward(x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out

    return forward
