"""Is FSQ good because it decomposes hierarchically? About 1000 codes in one, two, three, four, five and ten factors.

FSQ with one channel of 1000 levels, and with ever more channels; the digits of one number (`CarryQuantizer`); one
k-means codebook of 1024 codes, against a product and a residual of two codebooks of 32. On 32 px emoji, f4.

Command:  python -m vq.compare configs/compare/hierarchy.py
Expected: fsq_8_5_5_5 21.1 dB; k_means_1024, residual_32_32 and product_32_32 tie with it; fsq_1000 -3.5 +- 0.5 dB;
          all rows in experiments/hierarchy (measured here, 2026-11-27, seeds 0 to 2)
"""

_base_ = "recipes/emoji.py"

from vq.engine import Comparison
from vq.quantizers import (
    CarryQuantizer,
    EMACodebook,
    FiniteScalarQuantizer,
    KMeansInit,
    LookupFreeQuantizer,
    ProductQuantizer,
    ReplaceDeadCodes,
    ResidualQuantizer,
    VectorQuantizer,
)


def codebook(size, dim=16):
    """A quantizer whose codes are moving averages, begin with k-means, and are revived."""
    revival = dict(type=ReplaceDeadCodes)
    means = dict(type=EMACodebook, size=size, dim=dim, init=dict(type=KMeansInit), revival=revival)
    return dict(type=VectorQuantizer, codebook=means)


quantizers = dict(
    fsq_8_5_5_5=dict(type=FiniteScalarQuantizer, levels=(8, 5, 5, 5)),
    fsq_1000=dict(type=FiniteScalarQuantizer, levels=(1000,)),
    fsq_32_31=dict(type=FiniteScalarQuantizer, levels=(32, 31)),
    fsq_10_10_10=dict(type=FiniteScalarQuantizer, levels=(10, 10, 10)),
    fsq_4_x_5=dict(type=FiniteScalarQuantizer, levels=(4,) * 5),
    lfq_2_x_10=dict(type=LookupFreeQuantizer, bits=10),
    k_means_1024=codebook(1024),
    product_32_32=dict(
        type=ProductQuantizer, quantizers=[codebook(32, dim=8), codebook(32, dim=8)], is_packed=True
    ),
    residual_32_32=dict(type=ResidualQuantizer, quantizers=[codebook(32), codebook(32)]),
    carry_4_x_5=dict(type=CarryQuantizer, quantizer=codebook(4, dim=4), digits=5),
)
contestants = {name: dict(tokenizer=dict(quantizer=quantizer)) for name, quantizer in quantizers.items()}
comparison = dict(
    type=Comparison,
    question="Does FSQ work because it decomposes hierarchically?",
    baseline="fsq_8_5_5_5",
    seeds=(0, 1, 2),
    cpu_hours=1.0,
)
