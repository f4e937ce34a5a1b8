"""FSQ with noise, a residual quantizer with a beam or with QINCo, and a kept length, each beside its plain form.

The pictures are 32 px emoji, f4. The pairs are fsq and fsq_noise; rvq4 and rvq4_beam; rvq4_gradient and qinco4, all
with 64 codes per stage; cosine and cosine_norm. In the last pair cosine_norm costs 40 bits per token and cosine 8.

Command:  python -m vq.compare configs/compare/searches.py
Expected: PSNR, and the difference in a pair with its 95 % interval: fsq 19.28 dB, fsq_noise +0.06 +- 0.12;
          rvq4 21.25 dB, rvq4_beam +0.06 +- 0.36; rvq4_gradient 21.09 dB, qinco4 -0.05 +- 0.37 (all ties);
          cosine 19.04 dB, cosine_norm +0.59 +- 0.36, with 32 bits more per token; all rows in
          experiments/searches (measured here, 2026-11-28, 200 steps, seeds 0 to 2)
"""

_base_ = "recipes/emoji.py"

from vq.engine import Comparison
from vq.metrics import PSNR, CodebookUsage, L1Metric, MSEMetric, Perplexity
from vq.quantizers import (
    CosineDistance,
    EMACodebook,
    FiniteScalarQuantizer,
    ImplicitResidualQuantizer,
    KMeansInit,
    LearnedCodebook,
    NormPreservingQuantizer,
    ReplaceDeadCodes,
    ResidualQuantizer,
    VectorQuantizer,
)

options = dict(max_steps=200)
codes = dict(size=64, dim=16, revival=dict(type=ReplaceDeadCodes))
averaged = dict(type=EMACodebook, **codes)
learned = dict(type=LearnedCodebook, init=dict(type=KMeansInit), **codes)
cosine = dict(type=VectorQuantizer, codebook=dict(averaged, size=256), distance=dict(type=CosineDistance))
stages = [dict(type=VectorQuantizer, codebook=averaged)] * 4
by_gradient = [dict(type=VectorQuantizer, codebook=learned)] * 4

quantizers = dict(
    fsq=dict(type=FiniteScalarQuantizer, levels=(8, 6, 5)),
    fsq_noise=dict(type=FiniteScalarQuantizer, levels=(8, 6, 5), noise_rate=0.5),
    rvq4=dict(type=ResidualQuantizer, quantizers=stages),
    rvq4_beam=dict(type=ResidualQuantizer, quantizers=stages, beam_width=4),
    rvq4_gradient=dict(type=ResidualQuantizer, quantizers=by_gradient),
    qinco4=dict(type=ImplicitResidualQuantizer, codebooks=[learned] * 4, hidden_dim=32, num_blocks=1),
    cosine=cosine,
    cosine_norm=dict(type=NormPreservingQuantizer, quantizer=cosine),
)
contestants = {name: dict(tokenizer=dict(quantizer=quantizer)) for name, quantizer in quantizers.items()}
evaluator = dict(
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=CodebookUsage, codebook_size=256),
        dict(type=Perplexity, codebook_size=256),
    ],
)
comparison = dict(
    type=Comparison,
    question="Do noise dropout, a beam, implicit codebooks and a kept length help, each against its plain form?",
    seeds=(0, 1, 2),
    baseline="rvq4",
    cpu_hours=1.0,
)
