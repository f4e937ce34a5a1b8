"""Frozen pretrained networks, which compute features for losses and metrics."""

from vq.networks.frozen.base import FrozenWeights

__all__ = ["FrozenWeights"]
