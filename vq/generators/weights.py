"""A generator with smaller weights, for sampling: in bfloat16, or with 8-bit weights in its linear layers."""

import torch
from torch import nn

from vq.generators.base import Generator
from vq.generators.errors import GeneratorError
from vq.layers.scaled_linear import ScaledLinear

EIGHT_BITS = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
WEIGHT_DTYPES = ("bfloat16", *EIGHT_BITS)
"""The types that `convert_weights` knows."""

FLOAT8_CAPABILITY = (8, 9)
"""The first compute capability of NVIDIA GPUs that converts float8 in hardware (Ada, Hopper)."""


def convert_weights(generator: Generator, dtype: str) -> int:
    """Converts the weights of a generator in place, so that a step of sampling reads fewer bytes.

    `bfloat16` converts every parameter. `int8` and `float8` replace each `nn.Linear` by a `ScaledLinear`; embeddings,
    norms and the maps to logits of a `DepthHead` stay in bfloat16 on a CUDA device, and as they are elsewhere. The
    generator can only be used for inference afterwards.

    Args:
        generator: The generator, with its weights, on the device where it is used.
        dtype: One of `WEIGHT_DTYPES`.

    Returns:
        The number of weights that have the type now.

    Raises:
        ValueError: If the type is unknown, the device or the generator's layers do not support it, or weights are not
            finite.

    Example:
        >>> from vq.generators import DecoderTransformer, TransformerGenerator
        >>> generator = TransformerGenerator(
        ...     transformer=DecoderTransformer(width=16, depth=1, num_heads=2),
        ...     vocabulary_size=8, num_classes=3, grid=(2, 3),
        ... )
        >>> convert_weights(generator, "int8")
        3456
    """
    device = next(generator.parameters()).device
    _check(generator, dtype, device)
    if dtype == "bfloat16":
        generator.bfloat16()
        return sum(weight.numel() for weight in generator.parameters())
    replaced = [
        (module, name, ScaledLinear(layer, EIGHT_BITS[dtype]))
        for module in generator.modules()
        for name, layer in module.named_children()
        if isinstance(layer, nn.Linear)
    ]
    for module, name, layer in replaced:
        setattr(module, name, layer)
    if device.type == "cuda":
        for weight in generator.parameters():
            weight.data = weight.data.bfloat16()
    generator.requires_grad_(False)
    return sum(layer.weight.numel() for _, _, layer in replaced)


def _check(generator: Generator, dtype: str, device: torch.device) -> None:
    name = type(generator).__name__
    if dtype not in WEIGHT_DTYPES:
        raise GeneratorError(f"convert_weights: expected one of {', '.join(WEIGHT_DTYPES)}, got {dtype!r}")
    if dtype == "float8" and (
        device.type != "cuda" or torch.cuda.get_device_capability(device) < FLOAT8_CAPABILITY
    ):
        raise GeneratorError(
            f"float8: expected a CUDA device of compute capability 8.9 or later (Ada, Hopper), got {device}; use int8"
        )
    if dtype == "bfloat16":
        return
    layers = [type(layer) for layer in generator.modules() if isinstance(layer, nn.Linear)]
    if not layers or any(layer is not nn.Linear for layer in layers):
        found = ", ".join(sorted({layer.__name__ for layer in layers})) or "no linear layer"
        raise GeneratorError(
            f"{dtype}: expected a generator whose matrices are nn.Linear, got {name} with {found}; use bfloat16"
        )
