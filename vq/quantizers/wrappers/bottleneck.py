"""Low-dimensional codes for wide vectors: any quantizer between two linear maps."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.codebooks.learned import LearnedCodebook
from vq.quantizers.vector import VectorQuantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class BottleneckQuantizer(Quantizer):
    """Maps vectors linearly to the dimension of the codes, quantizes them, and maps the codes back (factorised codes).

    $q = W_{out} Q(W_{in} z + b_{in}) + b_{out}$. With few channels many codes stay in use: LlamaGen uses 8 and
    ViT-VQGAN 32, both with `CosineDistance`. The loss is that of the inner quantizer, in the low dimension. The
    gradient of the task passes through both maps, which learn from it.

    Source: Yu et al. 2022 (ViT-VQGAN), https://arxiv.org/abs/2110.04627, section 3.2 ("Factorized codes").

    Args:
        quantizer: Quantizer of the projected vectors.
        dim: Last axis of `z`.

    Raises:
        ValueError: If `dim` is not positive.

    Example:
        >>> import torch
        >>> from vq.quantizers import CosineDistance
        >>> narrow = VectorQuantizer(codebook=LearnedCodebook(size=512, dim=8), distance=CosineDistance())
        >>> quantizer = BottleneckQuantizer(quantizer=narrow, dim=256)
        >>> quantizer(torch.randn(2, 16, 256)).quantized.shape
        torch.Size([2, 16, 256])
    """

    def __init__(self, *, quantizer: Quantizer, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"BottleneckQuantizer: expected a positive dim, got {dim}")
        self.quantizer = quantizer
        self.project_in = nn.Linear(dim, quantizer.codebook_dim)
        self.project_out = nn.Linear(quantizer.codebook_dim, dim)
        self.codebook_size, self.codebook_dim = quantizer.codebook_size, dim
        self.index_shape, self.grid = quantizer.index_shape, quantizer.grid

    @classmethod
    def example(cls) -> "BottleneckQuantizer":
        """Returns a quantizer with 16 codes of length 4 for vectors of length 6."""
        return cls(quantizer=VectorQuantizer(codebook=LearnedCodebook.example()), dim=6)

    @property
    def needs_task_gradient(self) -> bool:
        """True: only the gradient of the task moves the map back from the codes."""
        return True

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        output: QuantizeOutput = self.quantizer(_apply(self.project_in, z), mask)
        return QuantizeOutput(
            quantized=_apply(self.project_out, output.quantized),
            indices=output.indices,
            loss=output.loss,
            metrics=output.metrics,
        )

    @torch.no_grad()
    def prepare(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> None:
        """Shows the projected vectors to the inner quantizer."""
        self.quantizer.prepare(_apply(self.project_in, z), mask)

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_index_shape"]:
        return self.quantizer.encode(_apply(self.project_in, z))

    def _decode(
        self, indices: Int[Tensor, "*lead_and_index_shape"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead dim"]:
        return _apply(self.project_out, self.quantizer.decode(indices, dtype))


def _apply(linear: nn.Linear, x: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead out"]:
    """Applies a linear map in the precision of `x`; the module itself may be in half precision."""
    return F.linear(x, linear.weight.to(x.dtype), linear.bias.to(x.dtype))
