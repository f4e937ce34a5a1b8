"""Codebooks: tables of code vectors, and how they learn."""

from vq.quantizers.codebooks.accumulation import accumulate
from vq.quantizers.codebooks.affine import AffineCodebook
from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.codebooks.bridged import BridgedCodebook
from vq.quantizers.codebooks.clustered import ClusteredCodebook
from vq.quantizers.codebooks.ema import EMACodebook
from vq.quantizers.codebooks.frozen import FrozenCodebook
from vq.quantizers.codebooks.learned import LearnedCodebook
from vq.quantizers.codebooks.mini_batch_k_means import MiniBatchKMeansCodebook
from vq.quantizers.codebooks.projected import ProjectedCodebook
from vq.quantizers.codebooks.spherical_ema import SphericalEMACodebook

__all__ = [
    "AffineCodebook",
    "BridgedCodebook",
    "ClusteredCodebook",
    "Codebook",
    "EMACodebook",
    "FrozenCodebook",
    "LearnedCodebook",
    "MiniBatchKMeansCodebook",
    "ProjectedCodebook",
    "SphericalEMACodebook",
    "accumulate",
]
