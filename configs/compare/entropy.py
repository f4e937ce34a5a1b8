"""Entropy and orthogonal terms, with both signs, for VQ, FSQ and LFQ, on 32 px emoji, f4.

The entropy term is weight * (H of each choice - H of the mean choice), and the logits of a choice are the negative
squared distances divided by the temperature (0.01; `warm`: 1). A negative weight asks for the opposite.

Command:  python -m vq.compare configs/compare/entropy.py
Expected: vq 20.2 dB and 70 % usage, with entropy term -0.9 +- 0.2 dB and 100 %, with its sign reversed -8.3 +- 0.4 dB
          and 10 %; all rows in experiments/entropy (measured here, 2026-11-27, seeds 0 to 2)
"""

_base_ = "recipes/emoji.py"

from vq.engine import Comparison
from vq.quantizers import (
    EntropyRegulariser,
    FiniteScalarQuantizer,
    KMeansInit,
    LearnedCodebook,
    LookupFreeQuantizer,
    OrthogonalRegulariser,
    VectorQuantizer,
)

vq = dict(
    type=VectorQuantizer, codebook=dict(type=LearnedCodebook, size=256, dim=16, init=dict(type=KMeansInit))
)
quantizers = dict(
    vq=vq,
    vq_entropy=dict(vq, regularisers=[dict(type=EntropyRegulariser, weight=0.1)]),
    vq_entropy_warm=dict(vq, regularisers=[dict(type=EntropyRegulariser, weight=0.1, temperature=1.0)]),
    vq_entropy_negative=dict(vq, regularisers=[dict(type=EntropyRegulariser, weight=-0.1)]),
    vq_orthogonal=dict(vq, regularisers=[dict(type=OrthogonalRegulariser, weight=10.0)]),
    fsq=dict(type=FiniteScalarQuantizer, levels=(8, 6, 5)),
    lfq=dict(type=LookupFreeQuantizer, bits=8),
    lfq_warm=dict(type=LookupFreeQuantizer, bits=8, temperature=1.0),
    lfq_no_entropy=dict(type=LookupFreeQuantizer, bits=8, entropy_weight=0.0),
)
contestants = {name: dict(tokenizer=dict(quantizer=quantizer)) for name, quantizer in quantizers.items()}
comparison = dict(
    type=Comparison,
    question="Which entropy term helps which quantizer, and with which sign?",
    baseline="vq",
    seeds=(0, 1, 2),
    cpu_hours=1.0,
)
