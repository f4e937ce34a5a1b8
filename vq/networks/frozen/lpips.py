"""The frozen network that LPIPS compares images with; it serves a loss and a metric."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq import pretrained
from vq.networks.frozen.base import FrozenWeights
from vq.registry import FEATURE_NETWORKS

LPIPSTrunk = Literal["alex", "vgg"]

# A step is ("conv", stride, padding), ("pool", kernel), stride 2, or "tap": compare the features here.
_CONV = ("conv", 1, 1)
_STEPS: dict[str, tuple[tuple[str, int, int] | tuple[str, int] | str, ...]] = {
    "alex": (
        *(("conv", 4, 2), "tap", ("pool", 3)),
        *(("conv", 1, 2), "tap", ("pool", 3)),
        *(_CONV, "tap", _CONV, "tap", _CONV, "tap"),
    ),
    "vgg": (
        *(_CONV, _CONV, "tap", ("pool", 2)),
        *(_CONV, _CONV, "tap", ("pool", 2)),
        *(_CONV, _CONV, _CONV, "tap", ("pool", 2)),
        *(_CONV, _CONV, _CONV, "tap", ("pool", 2)),
        *(_CONV, _CONV, _CONV, "tap"),
    ),
}
_MIN_SIZE = {"alex": 31, "vgg": 16}


@FEATURE_NETWORKS.register_module()  # type: ignore[untyped-decorator]
class LPIPSNetwork(FrozenWeights):
    """Measures how different two images look to a network trained on photographs (LPIPS v0.1).

    The trunk (AlexNet's or VGG16's convolutions, trained on ImageNet) turns both images into
    features at five depths; at each the unit-length features are subtracted, squared, weighted by
    channel as human judgements taught, averaged over positions and summed.

    All weights are `FrozenWeights`. There is no dropout. It computes in float32, also inside autocast. With
    `pyramid` it is a `FeaturePyramid`.

    Source: Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1; the weights of the authors'
        package `lpips` 0.1.4.
    Differs from the source: the gradient is finite where all features are 0 (there the package's is NaN);
        no dropout in training.

    Args:
        trunk: `alex` (the package's default, and the fast one) or `vgg` (VQGAN's loss).

    Raises:
        ValueError: If there is no such trunk.
        FileNotFoundError: If its weights are not at hand; the message says which command brings them.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, *, trunk: LPIPSTrunk) -> None:
        super().__init__()
        if trunk not in get_args(LPIPSTrunk):
            raise ValueError(
                f"LPIPSNetwork: expected trunk to be 'alex' or 'vgg', got {trunk!r}; choose one of them"
            )
        self.trunk = trunk
        # The mean and deviation of ImageNet's colours, moved from [0, 1] to [-1, 1] and rounded, as published.
        self.freeze("shift", torch.tensor([-0.030, -0.088, -0.188], device="cpu").reshape(1, 3, 1, 1))
        self.freeze("scale", torch.tensor([0.458, 0.448, 0.450], device="cpu").reshape(1, 3, 1, 1))
        for name, tensor in pretrained.tensors(f"lpips/{trunk}.safetensors").items():
            self.freeze(name, tensor)
        heads = sum(step == "tap" for step in _STEPS[trunk])
        self.channels: tuple[int, ...] = tuple(
            self.get_buffer(f"head_{i}_weight").shape[1] for i in range(heads)
        )

    def forward(
        self, reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b"]:
        """Two batches of images in [-1, 1] to one distance a pair, 0 for equal images, about 0..1.

        Gradients flow to `reconstruction` only; the features of `image` are computed without any.

        Raises:
            ValueError: If the images are too small for the trunk (31 px for alex, 16 px for vgg).
        """
        smallest = min(image.shape[-2:])
        if smallest < _MIN_SIZE[self.trunk]:
            raise ValueError(
                f"LPIPSNetwork: expected images of at least {_MIN_SIZE[self.trunk]} px for {self.trunk}, got "
                f"{smallest} px; resize them, or use another loss or metric"
            )
        with torch.autocast(device_type=image.device.type, enabled=False):
            with torch.no_grad():
                wanted = self.pyramid(image)
            found = self.pyramid(reconstruction)
            distance = self.shift.new_zeros(len(image))
            for index, (a, b) in enumerate(zip(found, wanted, strict=True)):
                difference = (_unit_length(a) - _unit_length(b)).square()
                weighted = F.conv2d(difference, self.get_buffer(f"head_{index}_weight"))
                distance = distance + weighted.mean(dim=(1, 2, 3))
            return distance

    def pyramid(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Images in [-1, 1] to the trunk's features after a ReLU at five depths, the shallowest first."""
        x = (image.to(self.shift.dtype) - self.shift) / self.scale
        taps: list[Tensor] = []
        layer = 0
        for step in _STEPS[self.trunk]:
            match step:
                case ("conv", stride, padding):
                    weight = self.get_buffer(f"trunk_{layer}_weight")
                    bias = self.get_buffer(f"trunk_{layer}_bias")
                    x = F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))
                    layer += 1
                case ("pool", kernel):
                    x = F.max_pool2d(x, kernel, stride=2)
                case "tap":
                    taps.append(x)
        return taps


def _unit_length(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    # The floor changes no value: 1e-10 swallows its root. It keeps the root's gradient finite at 0.
    squared = features.square().sum(dim=1, keepdim=True).clamp_min(torch.finfo(features.dtype).tiny)
    return features / (squared.sqrt() + 1e-10)
