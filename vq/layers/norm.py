"""Normalization layers of the convolutional networks."""

from torch import nn

MIN_CHANNELS_PER_GROUP = 4
"""Smallest number of channels per group in the published networks, which have 128 channels in 32 groups."""


def group_norm(channels: int, *, max_groups: int = 32, affine: bool = True) -> nn.GroupNorm:
    """Returns the layer that normalizes each group of channels of each image to mean 0 and variance 1.

    The published networks use 32 groups at widths of 128 and more. A narrower layer gets fewer groups:
    the largest divisor of `channels` with at least 4 channels per group. (32 groups of one
    channel each would be instance norm, which removes the mean of every channel, and with it the colour.)

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841 (group norm, eps 1e-6).
    Differs from the source: the number of groups below 128 channels, where the source uses 32 or fails.

    Args:
        channels: Number of channels of the features.
        max_groups: Number of groups if there are enough channels.
        affine: Whether there is a learned scale and shift for each channel.

    Returns:
        The layer.

    Raises:
        ValueError: If `channels` or `max_groups` is below 1.

    Example:
        >>> [group_norm(channels).num_groups for channels in (512, 128, 96, 32, 3)]
        [32, 32, 24, 8, 1]
    """
    if channels < 1 or max_groups < 1:
        raise ValueError(
            f"group_norm: expected channels and max_groups of at least 1, got {channels} and {max_groups}; "
            "check the widths of the network"
        )
    limit = min(max_groups, max(1, channels // MIN_CHANNELS_PER_GROUP))
    groups = next(count for count in range(limit, 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6, affine=affine)
