"""Layers with parameters, from which the networks are built."""

from vq.layers.attention import SpatialAttention
from vq.layers.diff_augment import DiffAugment
from vq.layers.frequency_patches import (
    FrequencyBandPatches,
    FrequencyBlockPatches,
    FrequencyPatches,
    SpectrumPatches,
)
from vq.layers.norm import group_norm
from vq.layers.patches import Patches, PixelPatches
from vq.layers.positions import LearnedPositions, Positions, RotaryPositions, SineCosinePositions
from vq.layers.resample import Downsample, Upsample
from vq.layers.resnet import PlainResidualBlock, ResnetBlock
from vq.layers.token_attention import LinearAttention, SoftmaxAttention, TokenAttention
from vq.layers.transformer import Transformer, TransformerBlock

__all__ = [
    "DiffAugment",
    "Downsample",
    "FrequencyBandPatches",
    "FrequencyBlockPatches",
    "FrequencyPatches",
    "LearnedPositions",
    "LinearAttention",
    "Patches",
    "PixelPatches",
    "PlainResidualBlock",
    "Positions",
    "ResnetBlock",
    "RotaryPositions",
    "SineCosinePositions",
    "SoftmaxAttention",
    "SpatialAttention",
    "SpectrumPatches",
    "TokenAttention",
    "Transformer",
    "TransformerBlock",
    "Upsample",
    "group_norm",
]
