"""FSQ with 240 to 64,000 codes, SFSQ, EMA and LFQ, each in float32 and with bf16 autocast, on 32 px emoji, f4.

The quantizers, the loss (L1 and LPIPS) and the question of the first table of FSQ-pytorch's users: is bf16 safe, and
why did EMA and LFQ collapse there? `configs/compare/collapse.py` answers the second half. EMA has no revival here.

Command:  python -m vq.compare configs/compare/scalar.py
Expected: fsq_240 20.0, fsq_1000 20.6, fsq_4375 21.3, fsq_15360 21.5, fsq_64000 21.8, sfsq_64000 21.4, ema_1024 20.2,
          lfq_1024 18.7 dB, and the same with bf16; all rows in experiments/scalar
          (measured here, 2026-11-27, seeds 0 to 2)
"""

_base_ = "recipes/emoji.py"

from vq.engine import Comparison
from vq.losses import LPIPSLoss
from vq.quantizers import (
    EMACodebook,
    FiniteScalarQuantizer,
    KMeansInit,
    LookupFreeQuantizer,
    SimpleFiniteScalarQuantizer,
    VectorQuantizer,
)

train_step = dict(
    losses=dict(lpips=dict(type=LPIPSLoss, network="alex")),
    weights=dict(lpips=1.0),
)
quantizers = dict(
    ema_1024=dict(
        type=VectorQuantizer, codebook=dict(type=EMACodebook, size=1024, dim=16, init=dict(type=KMeansInit))
    ),
    lfq_1024=dict(type=LookupFreeQuantizer, bits=10),
    fsq_240=dict(type=FiniteScalarQuantizer, levels=(8, 6, 5)),
    fsq_1000=dict(type=FiniteScalarQuantizer, levels=(8, 5, 5, 5)),
    fsq_4375=dict(type=FiniteScalarQuantizer, levels=(7, 5, 5, 5, 5)),
    fsq_15360=dict(type=FiniteScalarQuantizer, levels=(8, 8, 8, 6, 5)),
    fsq_64000=dict(type=FiniteScalarQuantizer, levels=(8, 8, 8, 5, 5, 5)),
    sfsq_64000=dict(type=SimpleFiniteScalarQuantizer, levels=(8, 8, 8, 5, 5, 5)),
)
contestants = {name: dict(tokenizer=dict(quantizer=quantizer)) for name, quantizer in quantizers.items()} | {
    f"{name}_bf16": dict(tokenizer=dict(quantizer=quantizer), arguments=["--autocast"])
    for name, quantizer in quantizers.items()
}
comparison = dict(
    type=Comparison,
    question="Does FSQ get better with every code it is given, is SFSQ as good, and is bf16 safe?",
    baseline="fsq_1000",
    seeds=(0, 1, 2),
    cpu_hours=1.0,
)
