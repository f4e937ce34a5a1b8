"""Why EMA and LFQ collapsed in the first table of FSQ-pytorch's users: their two mistakes, one by one.

In that code the sums of the EMA were reduced in a copy that was thrown away, so that on 8 ranks each code became an
eighth of its mean; the averages of the counts began at 0; and LFQ ran without its entropy and commitment terms. All
contestants have the codes of that code: drawn evenly from ±1/K, and never revived. `benchmarks/mistaken_codebooks.py`
holds the mistakes; none of them is in the library.

Command:  python -m vq.compare configs/compare/collapse.py
Expected: ema 19.5 dB and 28 % usage, with sums of one rank -3.2 +- 0.5 dB and 3 %; lfq 18.6 dB and 100 %, without both
          terms 37 %; all rows in experiments/collapse (measured here, 2026-11-27, seeds 0 to 2)
Needs:    a clone of the project, and its root as the working directory
"""

_base_ = "recipes/emoji.py"

from benchmarks.mistaken_codebooks import CountsFromZero, SumsOfOneRank
from vq.engine import Comparison
from vq.quantizers import (
    EMACodebook,
    KMeansInit,
    LookupFreeQuantizer,
    ReplaceDeadCodes,
    UniformInit,
    VectorQuantizer,
)

codes = dict(size=256, dim=16, init=dict(type=UniformInit))
quantizers = dict(
    ema=dict(type=VectorQuantizer, codebook=dict(type=EMACodebook, **codes)),
    ema_sums_of_one_rank=dict(type=VectorQuantizer, codebook=dict(type=SumsOfOneRank, num_ranks=8, **codes)),
    ema_counts_from_zero=dict(type=VectorQuantizer, codebook=dict(type=CountsFromZero, **codes)),
    ema_kmeans=dict(
        type=VectorQuantizer, codebook=dict(type=EMACodebook, size=256, dim=16, init=dict(type=KMeansInit))
    ),
    ema_kmeans_revival=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=EMACodebook,
            size=256,
            dim=16,
            init=dict(type=KMeansInit),
            revival=dict(type=ReplaceDeadCodes),
        ),
    ),
    lfq=dict(type=LookupFreeQuantizer, bits=8),
    lfq_without_entropy=dict(type=LookupFreeQuantizer, bits=8, entropy_weight=0.0),
    lfq_without_both=dict(type=LookupFreeQuantizer, bits=8, entropy_weight=0.0, commitment_weight=0.0),
)
contestants = {name: dict(tokenizer=dict(quantizer=quantizer)) for name, quantizer in quantizers.items()}
comparison = dict(
    type=Comparison,
    question="Which mistake collapses EMA and LFQ, and what cures it?",
    baseline="ema",
    seeds=(0, 1, 2),
    cpu_hours=1.0,
)
