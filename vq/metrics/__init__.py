"""Metrics: scores of a whole set of images, summed over batches and ranks."""

from vq.metrics.base import CodeMetric, Metric, ReconstructionMetric, VectorMetric
from vq.metrics.batch import needs_reconstruction, update_metrics
from vq.metrics.codebook import CodebookUsage, Perplexity
from vq.metrics.features import BatchFeatures, share_features
from vq.metrics.frechet import FIDMetric, SpatialFIDMetric
from vq.metrics.levels import LevelUsage
from vq.metrics.lpips import LPIPSMetric
from vq.metrics.moments import StatisticsCollector
from vq.metrics.pixel import PSNR, SSIM, L1Metric, MSEMetric
from vq.metrics.samples import KID, FeatureCosine, InceptionScore, PrecisionRecall
from vq.metrics.sets import SetMetric
from vq.metrics.stamp import Stamp
from vq.metrics.statistics import ReferenceStatistics
from vq.metrics.tokens import TokenScores
from vq.metrics.vectors import QuantizationError, TeacherCosine

__all__ = [
    "KID",
    "PSNR",
    "SSIM",
    "BatchFeatures",
    "CodeMetric",
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
    "QuantizationError",
    "ReconstructionMetric",
    "ReferenceStatistics",
    "SetMetric",
    "SpatialFIDMetric",
    "Stamp",
    "StatisticsCollector",
    "TeacherCosine",
    "TokenScores",
    "VectorMetric",
    "needs_reconstruction",
    "share_features",
    "update_metrics",
]
