"""Losses: two batches of images to one scalar."""

from vq.losses.base import Loss
from vq.losses.perceptual import LPIPSLoss
from vq.losses.pixel import L1Loss, MSELoss

__all__ = ["L1Loss", "LPIPSLoss", "Loss", "MSELoss"]
