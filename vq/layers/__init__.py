"""Blocks with parameters, which the networks are made of."""

from vq.layers.attention import SpatialAttention
from vq.layers.norm import group_norm
from vq.layers.resample import Downsample, Upsample
from vq.layers.resnet import PlainResidualBlock, ResnetBlock

__all__ = ["Downsample", "PlainResidualBlock", "ResnetBlock", "SpatialAttention", "Upsample", "group_norm"]
