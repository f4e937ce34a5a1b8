"""Residual quantization: each stage quantizes what the stages before it left over (RVQ)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from vq.ops.gradients import replace_value
from vq.ops.numerics.precision import computed_in
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.codebooks.ema import EMACodebook
from vq.quantizers.vector import VectorQuantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class ResidualQuantizer(Quantizer):
    r"""Quantizes `z`, then the residual, and so on; the code is the sum of the codes of all stages (RVQ).

    With $q_k$ the code of stage k, stage k sees $z - sg(\sum_{j<k} q_j)$. So the commitment loss of a
    `VectorQuantizer` is $|z - sg(\sum_{j \le k} q_j)|^2$, relative to the running sum. The loss is the mean over the
    stages.

    The same quantizer given several times is shared: it has one set of parameters, its codebook learns once per
    step, from the vectors of all its stages, and initialises or revives codes from those of the first. If every
    stage learns by its own loss alone, the gradient of the task passes straight through to `z`, around all stages.
    If one does not (another estimator than `StraightThrough`, a `GumbelQuantizer`, a `BottleneckQuantizer`), the
    gradient follows the chain rule through the stages, and $sg$ above is not applied. For stages that pass it
    straight through, both are the same.

    With scales $s_k$, stage k sees the residual divided by $s_k$, its code is multiplied by $s_k$, and its loss by
    $s_k^2$, which is the same squared difference in the units of z. Lookup-free stages need scales:
    `scales=[1, 1/2, 1/4]` over one `LookupFreeQuantizer` (residual LFQ) halves the steps from stage to stage. For
    FSQ use `ResidualFiniteScalarQuantizer`.

    Source: Lee et al. 2022 (RQ-VAE), https://arxiv.org/abs/2203.01941, eq. 3 to 8; prefixes in training:
        Zeghidour et al. 2021 (SoundStream), https://arxiv.org/abs/2107.03312, section III-C.
    Differs from the source: the squared differences are means; a stage may be any quantizer. The stages beyond a
        prefix still learn and have indices; only the returned sum is cut.

    Args:
        quantizers: Quantizers of the stages in order, all with the same `codebook_size`, the same `codebook_dim`
            and one index per vector.
        depth: Number of stages that share a single quantizer.
        scales: One positive number for each stage; None is 1 for all.
        prefix_rate: Fraction of examples (entries of the first axis of `z`) whose code in training is the sum of a
            random number of stages, each number from 1 to all equally likely (quantizer dropout). If it is positive,
            decoders learn to read the result of `decode_prefix`.

    Raises:
        ValueError: If there are no stages, they do not agree, or a scale or the rate is out of range or without
            effect.

    Example:
        >>> quantizer = ResidualQuantizer(quantizers=[VectorQuantizer.example()], depth=3)
        >>> quantizer(torch.randn(5, 4)).indices.shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        *,
        quantizers: Sequence[Quantizer],
        depth: int | None = None,
        scales: Sequence[float] | None = None,
        prefix_rate: float = 0.0,
    ) -> None:
        super().__init__()
        stages = list(quantizers) * (depth or 1) if len(quantizers) == 1 else list(quantizers)
        if not stages or (depth is not None and depth != len(stages)):
            raise ValueError(
                f"ResidualQuantizer: expected one quantizer shared by depth >= 1 stages, or one for each stage, "
                f"got {len(quantizers)} and depth={depth}"
            )
        kinds = {(stage.codebook_size, stage.codebook_dim, stage.index_shape) for stage in stages}
        if len(kinds) > 1 or stages[0].index_shape:
            raise ValueError(
                f"ResidualQuantizer: expected stages of one codebook_size and codebook_dim with one index per "
                f"vector, got (size, dim, index_shape) {sorted(kinds)}"
            )
        if scales is not None and (len(scales) != len(stages) or min(scales) <= 0):
            raise ValueError(
                f"ResidualQuantizer: expected a positive scale for each of {len(stages)} stages, got {scales}"
            )
        if not 0 <= prefix_rate <= 1:
            raise ValueError(f"ResidualQuantizer: expected a prefix_rate in [0, 1], got {prefix_rate}")
        if prefix_rate and len(stages) == 1:
            raise ValueError(
                f"ResidualQuantizer: expected at least two stages for prefixes, got one and "
                f"prefix_rate={prefix_rate}, which has no effect; leave it out, or add stages"
            )
        self.scales, self.prefix_rate = None if scales is None else tuple(scales), prefix_rate
        self.stages = nn.ModuleList(stages)
        self._follows_chain_rule = self.needs_task_gradient
        self.codebook_size, self.codebook_dim = stages[0].codebook_size, stages[0].codebook_dim
        self.index_shape = (len(stages),)

    @classmethod
    def example(cls) -> "ResidualQuantizer":
        """Returns three stages that share one codebook of averages."""
        shared = VectorQuantizer(codebook=EMACodebook.example())
        return cls(quantizers=[shared], depth=3)

    def decode_prefix(
        self, indices: Shaped[Tensor, "*lead_and_stages"], depth: int, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "*lead dim"]:
        """Returns the sum of the codes of the first `depth` stages: a coarser version of the same vectors.

        Args:
            indices: Indices of all stages, or of the first `depth` stages at least.
            depth: Number of stages to sum.
            dtype: Dtype of the result; the default is that of `decode`.

        Raises:
            ValueError: If the depth is not in [1, number of stages], or an index is not an integer in range.
        """
        if not 1 <= depth <= len(self.stages):
            raise ValueError(f"ResidualQuantizer: expected a depth in [1, {len(self.stages)}], got {depth}")
        dtype = dtype or self._own_precision()
        return self._sum_codes(indices[..., :depth], computed_in(dtype)).to(dtype)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        total = torch.zeros_like(z)
        is_cut = self.training and self.prefix_rate > 0
        partial_sums: list[Tensor] = []
        indices, losses = [], []
        metrics: dict[str, Tensor] = {}
        for number, stage in enumerate(self.stages):
            output = stage(self._divided(z - total, number), mask)
            code = output.quantized if self._follows_chain_rule else output.quantized.detach()
            total = total + self._multiplied(code, number)
            if is_cut:  # keeping the sums takes memory, and allocating it takes time
                partial_sums.append(total)
            indices.append(output.indices)
            losses.append(output.loss if self.scales is None else output.loss * self.scales[number] ** 2)
            metrics |= {f"stage{number}/{name}": value for name, value in output.metrics.items()}
            del output  # frees its vectors before the next stage
        if is_cut:
            total = self._cut_some(partial_sums)
        return QuantizeOutput(
            quantized=total if self._follows_chain_rule else replace_value(z, total),
            indices=torch.stack(indices, dim=-1),
            loss=torch.stack(losses).mean(),
            metrics=metrics,
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_stages"]:
        total, indices = torch.zeros_like(z), []
        for number, stage in enumerate(self._stages()):
            indices.append(stage.encode(self._divided(z - total, number)))
            total = total + self._multiplied(stage.decode(indices[-1], z.dtype), number)
        return torch.stack(indices, dim=-1)

    def _decode(
        self, indices: Int[Tensor, "*lead_and_stages"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead dim"]:
        return self._sum_codes(indices, dtype)

    def _sum_codes(
        self, indices: Shaped[Tensor, "*lead_and_stages"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead dim"]:
        codes = [
            self._multiplied(stage.decode(indices[..., i], dtype), i)
            for i, stage in enumerate(self._stages()[: indices.shape[-1]])
        ]
        total = torch.zeros_like(codes[0])
        for code in codes:  # in the order of `forward`, so that the sum is the same bit for bit
            total = total + code
        return total

    def _cut_some(self, partial_sums: Sequence[Float[Tensor, "*lead dim"]]) -> Float[Tensor, "*lead dim"]:
        """Selects for each example the sum of some of the stages, or of all of them."""
        last, count = partial_sums[-1], len(partial_sums)
        examples = last.shape[:1] if last.ndim > 1 else ()
        is_cut = torch.rand(examples, device=last.device) < self.prefix_rate
        drawn = torch.randint(count, examples, device=last.device)
        chosen = torch.where(is_cut, drawn, count - 1).view(*examples, *[1] * (last.ndim - len(examples)))
        cut = last
        for number, partial_sum in enumerate(partial_sums[:-1]):
            cut = torch.where(chosen == number, partial_sum, cut)
        return cut

    def _divided(self, rest: Float[Tensor, "*lead dim"], number: int) -> Float[Tensor, "*lead dim"]:
        return rest if self.scales is None else rest / self.scales[number]

    def _multiplied(self, code: Float[Tensor, "*lead dim"], number: int) -> Float[Tensor, "*lead dim"]:
        return code if self.scales is None else code * self.scales[number]

    def _stages(self) -> list[Quantizer]:
        return [stage for stage in self.stages if isinstance(stage, Quantizer)]
