"""Metrics: scores of a whole set of images."""

from vq.metrics.base import Metric
from vq.metrics.codebook import CodebookUsage, Perplexity
from vq.metrics.lpips import LPIPSMetric
from vq.metrics.pixel import PSNR, SSIM, L1Metric, MSEMetric

__all__ = ["PSNR", "SSIM", "CodebookUsage", "L1Metric", "LPIPSMetric", "MSEMetric", "Metric", "Perplexity"]
