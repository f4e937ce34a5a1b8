"""Frozen pretrained networks, which compute features for losses and metrics."""
