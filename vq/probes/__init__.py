"""Linear probes: how well a linear layer classifies images by what is left of them after tokenization."""

from vq.probes.features import PooledCodes, PooledPixels, ProbeFeatures
from vq.probes.linear import LinearProbe
from vq.probes.load import load_probe

__all__ = ["LinearProbe", "PooledCodes", "PooledPixels", "ProbeFeatures", "load_probe"]
