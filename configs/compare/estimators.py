"""DiVeQ, VQBridge, FSP and spherical lattice codes, each beside what it replaces, at about 8 bits per token.

The pictures are 32 px emoji, f4. All learned codes begin with k-means. DiVeQ replaces the straight-through gradient:
diveq with a revival and without the quantizer's loss (as in the paper), diveq_losses with it. VQBridge
replaces the linear map of SimVQ: bridge begins as k-means, and in bridge_published the codes are the output of the
transformer alone. FSP replaces FSQ, and the 240 codes of the lattice E8 replace those of BSQ. unrevived is plain VQ.

Command:  python -m vq.compare configs/compare/estimators.py
Expected: PSNR, and the difference in a pair with its 95 % interval: straight_through 18.75 dB,
          diveq_losses +0.46 +- 0.17, diveq +0.05 +- 0.42; simvq 18.74 dB, bridge_published +0.57 +- 1.10;
          fsq 19.28 dB, fsp -0.14 +- 0.39; bsq 18.71 dB, e8 -0.05 +- 0.18; only the first counts; all rows in
          experiments/estimators (measured here, 2026-11-28, 200 steps, seeds 0 to 2)
"""

_base_ = "recipes/emoji.py"

from vq.engine import Comparison
from vq.metrics import PSNR, CodebookUsage, L1Metric, MSEMetric, Perplexity
from vq.quantizers import (
    BinarySphericalQuantizer,
    BridgedCodebook,
    CosineDistance,
    DirectionalReparameterisation,
    FiniteScalarQuantizer,
    FrozenCodebook,
    KMeansInit,
    LatticeInit,
    LearnedCodebook,
    NormalInit,
    ProjectedCodebook,
    ReplaceDeadCodes,
    ScalarPerturbationQuantizer,
    VectorQuantizer,
)

options = dict(max_steps=200)
codes = dict(size=256, dim=16, init=dict(type=KMeansInit))
learned = dict(type=LearnedCodebook, **codes)
revived = dict(learned, revival=dict(type=ReplaceDeadCodes))
diveq = dict(
    type=VectorQuantizer, codebook=revived, estimator=dict(type=DirectionalReparameterisation, variance=1e-3)
)
bridged = dict(type=BridgedCodebook, groups=32, **codes)
lattice = dict(
    type=VectorQuantizer,
    codebook=dict(type=FrozenCodebook, size=240, dim=8, init=dict(type=LatticeInit)),
    distance=dict(type=CosineDistance),
    commitment_weight=0.0,
)

quantizers = dict(
    straight_through=dict(type=VectorQuantizer, codebook=revived),
    diveq=diveq,
    diveq_losses=diveq,
    unrevived=dict(type=VectorQuantizer, codebook=learned),
    simvq=dict(type=VectorQuantizer, codebook=dict(type=ProjectedCodebook, **codes)),
    bridge=dict(type=VectorQuantizer, codebook=bridged),
    bridge_published=dict(
        type=VectorQuantizer, codebook=dict(bridged, init=dict(type=NormalInit), is_residual=False)
    ),
    fsq=dict(type=FiniteScalarQuantizer, levels=(8, 6, 5)),
    fsp=dict(type=ScalarPerturbationQuantizer, levels=(8, 6, 5)),
    bsq=dict(type=BinarySphericalQuantizer, bits=8),
    e8=lattice,
)
contestants = {name: dict(tokenizer=dict(quantizer=quantizer)) for name, quantizer in quantizers.items()}
contestants["diveq"]["train_step"] = dict(weights=dict(quantizer=0.0))
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
    question="Do DiVeQ, VQBridge, FSP and lattice codes help, each against what it replaces?",
    seeds=(0, 1, 2),
    baseline="straight_through",
    cpu_hours=1.0,
)
