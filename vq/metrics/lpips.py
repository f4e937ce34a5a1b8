"""The score between the features of a frozen network."""

import torch

from vq.metrics.base import Images, Indices, ReconstructionMetric
from vq.networks.frozen.lpips import LPIPSNetwork, LPIPSTrunk
from vq.ops.images import to_signed_unit, to_uint8
from vq.registry import METRICS


@METRICS.register_module()
class LPIPSMetric(ReconstructionMetric):
    """Averages the images' distances in a frozen network's features (keys `lpips_alex`, `lpips_vgg`).

    The images are rounded to bytes first, so that files written to disk score the same.

    Source: Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1.
    Differs from the source: the rounding; see `LPIPSNetwork` for the rest.

    Args:
        network: `alex` (the authors' default for a score) or `vgg` (VQGAN's). The two are different scales,
            so the key names it; do not score with the network that the training loss used alone.

    Raises:
        ValueError: If there is no such network.
        FileNotFoundError: If its weights are not at hand; the message says which command brings them.
    """

    higher_is_better = False

    def __init__(self, *, network: LPIPSTrunk = "alex") -> None:
        super().__init__()
        self.network = LPIPSNetwork(trunk=network)
        self.score = f"lpips_{network}"
        self.add_sum(self.score)

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the images' distances."""
        distances = self.network(to_signed_unit(to_uint8(reconstruction)), to_signed_unit(to_uint8(image)))
        # A byte cannot be NaN, so a broken reconstruction would pass as a black one without this.
        is_finite = torch.isfinite(reconstruction).flatten(1).all(dim=1)
        self.get_buffer(self.score).add_(torch.where(is_finite, distances.double(), torch.nan).sum())
