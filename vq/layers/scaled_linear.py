"""A linear layer whose weights have 8 bits, with one scale for each output channel."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.ops.kernels import use_kernels


class ScaledLinear(nn.Module):
    """Computes x W^T + b, where row i of W is an 8-bit row times a float32 scale.

    The scale maps the largest weight of a row to the largest number of the type: 127 in int8, 448 in float8. Inputs
    stay as they are, and products are summed in the precision of a product of the input's type. On a CUDA device with
    Triton the weights are read as 8 bits and converted inside the kernel; otherwise they are converted first, which
    `torch.compile` fuses with the product. There is no gradient.

    Args:
        layer: The layer whose weights are rounded. Its bias is kept as it is.
        dtype: torch.int8 or torch.float8_e4m3fn.

    Raises:
        ValueError: If a weight is not finite.

    Example:
        >>> layer = nn.Linear(8, 4)
        >>> x = torch.ones(2, 8)
        >>> torch.allclose(ScaledLinear(layer, torch.int8)(x), layer(x), atol=1e-2)
        True
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        exact = layer.weight.detach().float()
        if not bool(exact.isfinite().all()):
            raise ValueError(
                f"ScaledLinear: expected finite weights, got {int((~exact.isfinite()).sum())} values that are NaN or "
                "infinite; use an earlier checkpoint"
            )
        is_integer = not dtype.is_floating_point
        largest = torch.iinfo(dtype).max if is_integer else torch.finfo(dtype).max
        # A row of zeros keeps a scale of 1.
        reach = exact.abs().amax(1)
        scale = torch.where(reach > 0, reach / largest, 1.0)
        scaled = exact / scale[:, None]
        self.register_buffer("weight", (scaled.round() if is_integer else scaled).to(dtype))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Float[Tensor, "*b c_in"]) -> Float[Tensor, "*b c_out"]:
        """Applies the layer to each vector."""
        if use_kernels(x.device) and not torch.compiler.is_compiling():
            from vq.ops.kernels.scaled_product import scaled_product

            flat = scaled_product(x.reshape(-1, x.shape[-1]).contiguous(), self.weight, self.scale)
            out = flat.unflatten(0, x.shape[:-1])
        else:
            out = F.linear(x, self.weight.to(x.dtype)) * self.scale
        return (out if self.bias is None else out + self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        """The sizes and the type of the weights, for `print`."""
        rows, columns = self.weight.shape
        return f"{columns}, {rows}, {self.weight.dtype}"
