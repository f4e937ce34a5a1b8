"""A feature network small enough for tests, and weights for the real Inception's graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from vq.networks.frozen.features import FeatureNetwork
from vq.networks.frozen.inception import INCEPTION_WEIGHTS, inception_shapes


class TinyNetwork(FeatureNetwork):
    """Linear maps of the 4 x 4 means of an image's pixels."""

    sizes: ClassVar[Mapping[str, int]] = {"pool": 6, "spatial": 5, "logits": 4}

    def __init__(self, *, name: str = "tiny", protocol: str = "test", is_official: bool = False) -> None:
        super().__init__()
        self.name, self.protocol, self.is_official = name, protocol, is_official
        self.resize, self.sha256, self.calls = "mean of 4 x 4 tiles", "0" * 64, 0
        draws = torch.Generator().manual_seed(0)
        for kind, size in self.sizes.items():
            self.freeze(kind, torch.randn(48, size, generator=draws))

    def features(self, image: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        tiles = torch.nn.functional.adaptive_avg_pool2d(image.float() / 255, 4).flatten(1)
        # Row by row, so that a feature does not depend on the rest of the batch by a single bit.
        return {
            kind: torch.stack([(row[:, None] * self.get_buffer(kind)).sum(dim=0) for row in tiles])
            for kind in self.sizes
        }


def write_inception(folder: Path, seed: int = 0) -> Path:
    """Random weights in the form of the published file, at their place below the pretrained `folder`."""
    draws = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in inception_shapes().items():
        if name.endswith("conv.weight"):
            fan_in = shape[1] * shape[2] * shape[3]
            tensors[name] = torch.randn(shape, generator=draws) * (2 / fan_in) ** 0.5
            tensors[name.replace("conv.weight", "bn.num_batches_tracked")] = torch.tensor(0)
        elif name.endswith(("running_var", "bn.weight")):
            tensors[name] = torch.rand(shape, generator=draws) + 0.5
        else:
            tensors[name] = torch.randn(shape, generator=draws) * (0.03 if name == "fc.weight" else 0.1)
    file = folder / INCEPTION_WEIGHTS
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, file)
    return file
