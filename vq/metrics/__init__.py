"""Metrics: scores of a whole set of images, summed over batches and ranks."""

from vq.metrics.base import Metric, ReconstructionMetric
from vq.metrics.codebook import CodebookUsage, Perplexity
from vq.metrics.features import BatchFeatures, share_features
from vq.metrics.frechet import FIDMetric, SpatialFIDMetric
from vq.metrics.levels import LevelUsage
from vq.metrics.lpips import LPIPSMetric
from vq.metrics.moments import StatisticsCollector
from vq.metrics.pixel import PSNR, SSIM, L1Metric, MSEMetric
from vq.metrics.samples import KID, FeatureCosine, InceptionScore, PrecisionRecall
from vq.metrics.sets import SetMetric, update_reconstructions
from vq.metrics.stamp import Stamp
from vq.metrics.statistics import ReferenceStatistics
from vq.metrics.tokens import TokenScores

__all__ = [
    "KID",
    "PSNR",
    "SSIM",
    "BatchFeatures",
    "CodebookUsage",
    "FIDMetric",
    "FeatureCosine",
    "InceptionScore",
    "L1Metric",
    "LPIPSMetric",
    "LevelUsage",
    "MSEMetric",
    "Metric",
    "Perplexity",
    "PrecisionRecall",
    "ReconstructionMetric",
    "ReferenceStatistics",
    "SetMetric",
    "SpatialFIDMetric",
    "Stamp",
    "StatisticsCollector",
    "TokenScores",
    "share_features",
    "update_reconstructions",
]
