"""The two functions of a tokenizer that are exported, and the operators that exported graphs use instead of ours."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vq.ops.distance import centred, nearest_codes_at_once
from vq.tokenizers import Tokenizer


class EncodeGraph(nn.Module):
    """Maps float32 images in [-1, 1] to int64 indices, without a check of their values.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, image: Float[Tensor, "batch channels height width"]) -> Int[Tensor, "batch *index"]:
        """Returns the indices of images."""
        with StandardOperators():
            return self.tokenizer.encode_images(image)


class DecodeGraph(nn.Module):
    """Maps int64 indices to float32 images, clamped to [-1, 1], without a check of their range.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, indices: Int[Tensor, "batch *index"]) -> Float[Tensor, "batch channels height width"]:
        """Returns the images of indices."""
        with StandardOperators():
            return self.tokenizer.decode(indices)


class StandardOperators(TorchFunctionMode):
    """Inside, operators that other runtimes do not have are replaced by ones that they have.

    The streamed search of codes becomes a matrix product and its minimum, and a cumulative product becomes products.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls the replacement of an operator, or the operator itself if it has none."""
        return _replacements().get(func, func)(*args, **(kwargs or {}))


def nearest_code_at_once(
    z: Float[Tensor, "n dim"], codebook: Float[Tensor, "size dim"], by_distance: bool = True
) -> Int[Tensor, "n"]:
    """Returns the index of the nearest code, or of the largest product, from a (vectors x codes) tensor of scores.

    It has the formula of `vq.ops.distance.nearest_code`, but does not search doubtful vectors again in float64. So
    rounding may decide between codes that are almost equally near.

    Example:
        >>> nearest_code_at_once(torch.tensor([[0.9], [0.1]]), torch.tensor([[0.0], [1.0], [1.0]]))
        tensor([1, 0])
    """
    near, codes = centred(z, codebook)
    if not by_distance:
        return (z @ codes.T).argmax(dim=1)
    return (codes.square().sum(dim=1) / 2 - near @ codes.T).argmin(dim=1)


def _cumulative_product(x: Tensor, dim: int) -> Tensor:
    return torch.stack(list(accumulate(x.unbind(dim), torch.mul)), dim=dim)


def _replacements() -> dict[Callable[..., Any], Callable[..., Any]]:
    return {
        torch.ops.vq.nearest_code.default: nearest_code_at_once,
        torch.ops.vq.nearest_codes.default: nearest_codes_at_once,
        torch.Tensor.cumprod: _cumulative_product,
    }
