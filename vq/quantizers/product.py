"""Product quantization: the vector is cut into parts, each with an index of its own (GVQ)."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.codebooks import EMACodebook, accumulate
from vq.quantizers.vector import VectorQuantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class ProductQuantizer(Quantizer):
    """Cuts each vector into consecutive parts and quantizes each part by itself (product or grouped VQ).

    The same quantizer given once for several groups is shared (GVQ): one set of codes, which learns once a
    step from all parts; a quantizer for each group is product quantization (GSVQ). The loss is the mean of
    the groups', which for equal parts is the loss of the whole vector.

    Source: Jegou et al. 2011, https://doi.org/10.1109/TPAMI.2010.57, section II.

    Args:
        quantizers: One for each part, in order, all with the same `codebook_size` and one index a vector;
            the parts are as long as their `codebook_dim`.
        groups: With a single quantizer, how many parts share it.

    Raises:
        ValueError: If there are no parts, or their sizes do not agree.

    Example:
        >>> quantizer = ProductQuantizer(quantizers=[VectorQuantizer.example()], groups=2)
        >>> quantizer.codebook_dim, quantizer(torch.randn(5, 8)).indices.shape
        (8, torch.Size([5, 2]))
    """

    def __init__(self, *, quantizers: Sequence[Quantizer], groups: int | None = None) -> None:
        super().__init__()
        parts = list(quantizers) * (groups or 1) if len(quantizers) == 1 else list(quantizers)
        if not parts or (groups is not None and groups != len(parts)):
            raise ValueError(
                f"ProductQuantizer: expected one quantizer to share over groups >= 1 parts, or one for each "
                f"part, got {len(quantizers)} and groups={groups}"
            )
        if len({part.codebook_size for part in parts}) > 1 or any(part.index_shape for part in parts):
            raise ValueError(
                f"ProductQuantizer: expected parts of one codebook_size with one index a vector, got sizes "
                f"{[part.codebook_size for part in parts]} and index shapes {[p.index_shape for p in parts]}"
            )
        self.parts = nn.ModuleList(parts)
        self.codebook_size = parts[0].codebook_size
        self.widths = [part.codebook_dim for part in parts]
        self.codebook_dim = sum(self.widths)
        self.index_shape = (len(parts),)

    @classmethod
    def example(cls) -> "ProductQuantizer":
        """Two parts over one averaged codebook."""
        return cls(quantizers=[VectorQuantizer(codebook=EMACodebook.example())], groups=2)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        outputs: list[QuantizeOutput] = []
        for number, (part, chunk) in enumerate(
            zip(self.parts, torch.split(z, self.widths, dim=-1), strict=True)
        ):
            # Shared codes learn at their last part, from all of them.
            is_shared_later = any(later is part for later in list(self.parts)[number + 1 :])
            with accumulate(part) if is_shared_later else nullcontext():
                outputs.append(part(chunk, mask))
        metrics = {
            f"part{number}/{name}": value
            for number, output in enumerate(outputs)
            for name, value in output.metrics.items()
        }
        return QuantizeOutput(
            quantized=torch.cat([output.quantized for output in outputs], dim=-1),
            indices=torch.stack([output.indices for output in outputs], dim=-1),
            loss=torch.stack([output.loss for output in outputs]).mean(),
            metrics=metrics,
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_parts"]:
        chunks = torch.split(z, self.widths, dim=-1)
        return torch.stack(
            [part.encode(chunk) for part, chunk in zip(self._parts(), chunks, strict=True)], dim=-1
        )

    def _decode(self, indices: Int[Tensor, "*lead_and_parts"]) -> Float[Tensor, "*lead dim"]:
        return torch.cat([part.decode(indices[..., i]) for i, part in enumerate(self._parts())], dim=-1)

    def _parts(self) -> list[Quantizer]:
        return [part for part in self.parts if isinstance(part, Quantizer)]
