"""Residual quantization: each stage quantizes what the stages before it left over (RVQ)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from vq.ops.distance import nearest_codes
from vq.ops.gradients import replace_value
from vq.ops.numerics.precision import computed_in
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.codebooks.ema import EMACodebook
from vq.quantizers.parts.distances import EuclideanDistance
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

    With a `beam_width` B, the codes are chosen jointly: after each stage the search keeps the B sums of codes that are
    nearest to z, each continued by every code of the stage, and after the last stage the nearest one. The codes of a
    stage then need not be the nearest to its residual. The search takes at least B times as long as the greedy one, and
    decoding is unchanged. Training and eval search in the same way.

    Source: Lee et al. 2022 (RQ-VAE), https://arxiv.org/abs/2203.01941, eq. 3 to 8; prefixes in training:
        Zeghidour et al. 2021 (SoundStream), https://arxiv.org/abs/2107.03312, section III-C; the beam: Liu et al. 2015,
        https://arxiv.org/abs/1509.05195 (multi-path encoding).
    Differs from the source: the squared differences are means; a stage may be any quantizer. The stages beyond a
        prefix still learn and have indices; only the returned sum is cut. The beam ranks sums by their distance
        from z, as the paper; vector-quantize-pytorch adds up the distances after all stages so far.

    Args:
        quantizers: Quantizers of the stages in order, all with the same `codebook_size`, the same `codebook_dim`
            and one index per vector.
        depth: Number of stages that share a single quantizer.
        scales: One positive number for each stage; None is 1 for all.
        prefix_rate: Fraction of examples (entries of the first axis of `z`) whose code in training is the sum of a
            random number of stages, each number from 1 to all equally likely (quantizer dropout). If it is positive,
            decoders learn to read the result of `decode_prefix`.
        beam_width: Number of sums that the search keeps after each stage; 1 is the greedy search. More than 1 needs
            stages that are a `VectorQuantizer` with the `EuclideanDistance`.

    Raises:
        ValueError: If there are no stages, they do not agree or cannot be searched by a beam, or a scale, the rate or
            the width is out of range or without effect.

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
        beam_width: int = 1,
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
        _check_beam(stages, beam_width)
        self.beam_width = beam_width
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
        chosen = self._beam(z, mask, learns=self.training) if self.beam_width > 1 else None
        total = torch.zeros_like(z)
        is_cut = self.training and self.prefix_rate > 0
        partial_sums: list[Tensor] = []
        indices, losses = [], []
        metrics: dict[str, Tensor] = {}
        for number, stage in enumerate(self.stages):
            rest = self._divided(z - total, number)
            if chosen is not None and isinstance(stage, VectorQuantizer):
                output = stage.quantize_with(rest, chosen[..., number], mask)
            else:
                output = stage(rest, mask)
            code = output.quantized if self._follows_chain_rule else output.quantized.detach()
            total = total + self._multiplied(code, number)
            if is_cut:  # keeping the sums takes memory, and allocating it takes time
                partial_sums.append(total)
            indices.append(output.indices)
            losses.append(output.loss if self.scales is None else output.loss * self.scales[number] ** 2)
            metrics |= {f"stage{number}/{name}": value for name, value in output.metrics.items()}
            del output, rest  # frees its vectors before the next stage
        if is_cut:
            total = self._cut_some(partial_sums)
        return QuantizeOutput(
            quantized=total if self._follows_chain_rule else replace_value(z, total),
            indices=torch.stack(indices, dim=-1),
            loss=torch.stack(losses).mean(),
            metrics=metrics,
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_stages"]:
        if self.beam_width > 1:
            return self._beam(z, None, learns=False)
        total, indices = torch.zeros_like(z), []
        for number, stage in enumerate(self._stages()):
            indices.append(stage.encode(self._divided(z - total, number)))
            total = total + self._multiplied(stage.decode(indices[-1], z.dtype), number)
        return torch.stack(indices, dim=-1)

    def _decode(
        self, indices: Int[Tensor, "*lead_and_stages"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead dim"]:
        return self._sum_codes(indices, dtype)

    @torch.no_grad()
    def _beam(
        self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None, *, learns: bool
    ) -> Int[Tensor, "*lead_and_stages"]:
        """Searches the codes of all stages together; before each search a codebook that learns may prepare its codes.

        It prepares them for what the nearest sum of the stages before leaves over.
        """
        rest = z.reshape(-1, 1, self.codebook_dim)  # (vectors, sums that are kept, channels)
        indices = torch.empty(*rest.shape[:2], 0, dtype=torch.int64, device=z.device)
        for number, stage in enumerate(self._vector_quantizers()):
            if learns:
                stage.prepare(self._divided(rest[:, 0].reshape(z.shape), number), mask)
            codes = self._multiplied(stage.codebook.codes.to(z.dtype), number)
            width = self.beam_width if number + 1 < len(self.stages) else 1
            sums, count = rest.shape[1], min(width, len(codes))
            near = nearest_codes(rest.flatten(0, 1), codes, count).view(rest.shape[0], sums, count)
            each = [(rest - codes[near[..., n]]).square().sum(dim=2) for n in range(count)]
            errors = torch.stack(each, dim=2).flatten(1)
            best = errors.topk(min(width, sums * count), dim=1, largest=False).indices
            path, code = (best // count)[..., None], near.flatten(1).gather(1, best)
            rest = rest.gather(1, path.expand(-1, -1, self.codebook_dim)) - codes[code]
            indices = torch.cat([indices.gather(1, path.expand(-1, -1, number)), code[..., None]], dim=2)
        return indices[:, 0].reshape(*z.shape[:-1], len(self.stages))

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

    def _vector_quantizers(self) -> list[VectorQuantizer]:
        return [stage for stage in self.stages if isinstance(stage, VectorQuantizer)]


def _check_beam(stages: Sequence[Quantizer], width: int) -> None:
    if width < 1 or (width > 1 and len(stages) == 1):
        raise ValueError(
            f"ResidualQuantizer: expected a beam_width of 1, or of more for at least two stages, got {width} for "
            f"{len(stages)}; leave it out, or add stages"
        )
    for stage in stages if width > 1 else ():
        if not isinstance(stage, VectorQuantizer) or not isinstance(stage.distance, EuclideanDistance):
            found = f" with {type(stage.distance).__name__}" if isinstance(stage, VectorQuantizer) else ""
            raise ValueError(
                f"ResidualQuantizer: expected stages that are a VectorQuantizer with EuclideanDistance for a "
                f"beam_width of {width}, got {type(stage).__name__}{found}; leave the beam out, or change the stages"
            )
