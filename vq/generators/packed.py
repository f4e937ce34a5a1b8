"""Faster linear layers on a CPU for batches of a few rows, from weights in a packed layout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vq.layers.scaled_linear import ScaledLinear

_INTEGERS: WeakKeyDictionary[ScaledLinear, tuple[object, Tensor]] = WeakKeyDictionary()
"""The packed weights of layers, each with what they were made of. To pack integers takes as long as twenty steps."""


@contextmanager
def packed_weights(network: nn.Module, *, rows: int) -> Iterator[None]:
    """A context in which a network's linear layers on a CPU use a copy of their weights in oneDNN's packed layout.

    Sampling one token per step multiplies matrices with a few rows, for which `nn.Linear` takes about twice as long on
    an AMD CPU. Making the copy takes about as long as ten steps, and as much memory as the weights. Results differ by
    rounding. Layers in float32 are packed, and layers in bfloat16 or int8 if the CPU has instructions for them; all
    others stay as they are.

    The instructions for int8 multiply integers. So the inputs of a `ScaledLinear` are rounded to 8 bits too, with one
    scale for each row, so that a row's result does not depend on the other rows. Its packed weights are kept for the
    next context.

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
    layers = [
        layer
        for layer in network.modules()
        if (type(layer) is nn.Linear or isinstance(layer, ScaledLinear)) and _can_be_packed(layer)
    ]
    try:
        for layer in layers:
            packed = (
                _packed_integers(layer, rows) if isinstance(layer, ScaledLinear) else _packed(layer, rows)
            )
            layer.forward = packed  # type: ignore[method-assign, assignment]  # restored below
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _can_be_packed(layer: nn.Linear | ScaledLinear) -> bool:
    dtype = layer.weight.dtype
    if layer.weight.device.type != "cpu" or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.int8:
        return torch.cpu._is_vnni_supported()
    has_bfloat16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or bool(has_bfloat16)


def _packed(layer: nn.Linear, rows: int) -> Callable[[Tensor], Tensor]:
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows), layer.bias

    def forward(x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out

    return forward


def _packed_integers(layer: ScaledLinear, rows: int) -> Callable[[Tensor], Tensor]:
    ops = torch.ops.onednn
    size, dim = layer.weight.shape
    version = None if layer.weight.is_inference() else layer.weight._version
    made_of = (layer.weight.data_ptr(), version, rows)
    if layer not in _INTEGERS or _INTEGERS[layer][0] != made_of:
        _INTEGERS[layer] = made_of, ops.qlinear_prepack(layer.weight, [rows, dim])
    weight = _INTEGERS[layer][1]
    scale, bias = layer.scale.float(), layer.bias
    zeros = torch.zeros(size, dtype=torch.int32)
    smallest = torch.finfo(torch.float32).tiny

    def forward(x: Tensor) -> Tensor:
        flat = x.reshape(-1, dim).float()
        step = flat.abs().amax(1, keepdim=True).clamp_min_(smallest) / 127
        # Inputs are unsigned numbers around 128, which is what the instructions take.
        inputs = (flat / step).round_().add_(128).to(torch.uint8)
        out: Tensor = ops.qlinear_pointwise(
            inputs, 1.0, 128, weight, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        out = out.mul_(step) if bias is None else out.mul_(step).add_(bias)
        return out.view(*x.shape[:-1], size).to(x.dtype)

    return forward
