"""Pretrained networks that are never trained here: features for losses and metrics."""
