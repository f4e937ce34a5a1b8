"""Losses between two batches of images or features, and objectives of adversarial training on logits."""

from vq.losses.adversarial import (
    AdversarialObjective,
    HingeObjective,
    NonSaturatingObjective,
    VanillaObjective,
)
from vq.losses.alignment import FeatureAlignment
from vq.losses.base import Loss
from vq.losses.discriminator_penalty import DiscriminatorPenalty, GradientPenalty, LeCAMPenalty, R1Penalty
from vq.losses.features import CosineFeatureLoss, FeatureLoss, GramLoss, LogitsLoss
from vq.losses.perceptual import LPIPSLoss
from vq.losses.pixel import L1Loss, MSELoss

__all__ = [
    "AdversarialObjective",
    "CosineFeatureLoss",
    "DiscriminatorPenalty",
    "FeatureAlignment",
    "FeatureLoss",
    "GradientPenalty",
    "GramLoss",
    "HingeObjective",
    "L1Loss",
    "LPIPSLoss",
    "LeCAMPenalty",
    "LogitsLoss",
    "Loss",
    "MSELoss",
    "NonSaturatingObjective",
    "R1Penalty",
    "VanillaObjective",
]
