"""The LPIPS metric."""

from collections.abc import Sequence

import torch

from vq.metrics.base import Images, Indices, ReconstructionMetric
from vq.networks.frozen.lpips import LPIPSNetwork, LPIPSTrunk
from vq.ops.images import checked_rgb, rgb_view, to_signed_unit, to_uint8
from vq.registry import METRICS


@METRICS.register_module()
class LPIPSMetric(ReconstructionMetric):
    """Averages the LPIPS distance between images and reconstructions (keys `lpips_alex`, `lpips_vgg`).

    The images are rounded to bytes first, so that files written from them have the same score.

    Source: Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1.
    Differs from the source: images are rounded to bytes; the rest as in `LPIPSNetwork`.

    Args:
        network: `alex` (the authors' default for a score) or `vgg` (VQGAN's). Their scales differ, so the key names the
            network. Do not rely only on the network that the training loss uses.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        ValueError: If the network is unknown, or `rgb` is invalid.
        FileNotFoundError: If the weight file does not exist. The message says which command creates it.
    """

    higher_is_better = False

    def __init__(self, *, network: LPIPSTrunk = "alex", rgb: Sequence[int] | None = None) -> None:
        super().__init__()
        self.rgb = checked_rgb("LPIPSMetric", rgb)
        self.network = LPIPSNetwork(trunk=network)
        self.score = f"lpips_{network}"
        self.add_sum(self.score)

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the distances of a batch.

        Raises:
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        image, reconstruction = (rgb_view("LPIPSMetric", x, self.rgb) for x in (image, reconstruction))
        distances = self.network(to_signed_unit(to_uint8(reconstruction)), to_signed_unit(to_uint8(image)))
        # A byte cannot be NaN: without this, a reconstruction with NaN would score as if it were black.
        is_finite = torch.isfinite(reconstruction).flatten(1).all(dim=1)
        self.get_buffer(self.score).add_(torch.where(is_finite, distances.double(), torch.nan).sum())

    def stamp(self) -> dict[str, str | int | None]:
        """Returns the channels that the network sees, if they are declared."""
        return {} if self.rgb is None else {"rgb": str(self.rgb)}
