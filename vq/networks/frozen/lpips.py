"""The frozen network of LPIPS, used by a loss and a metric."""

from contextlib import nullcontext
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq import pretrained
from vq.networks.frozen.base import FrozenWeights
from vq.ops.numerics.precision import without_autocast
from vq.registry import FEATURE_NETWORKS

LPIPSTrunk = Literal["alex", "vgg"]

# A step is ("conv", stride, padding), ("pool", kernel) of stride 2, or "tap", where features are compared.
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


@FEATURE_NETWORKS.register_module()
class LPIPSNetwork(FrozenWeights):
    """Computes the perceptual distance between images (LPIPS v0.1).

    The trunk (the convolutions of AlexNet or VGG16, trained on ImageNet) computes features of both images at five
    depths. At each depth the features are normalized to unit length, and their squared differences are weighted by
    channel with weights learned from human judgements, averaged over positions, and summed.

    It computes in float32, even inside autocast, unless a call says otherwise. It is a `FeaturePyramid` too.

    Source: Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1; the weights of the authors'
        package `lpips` 0.1.4.
    Differs from the source: the gradient is finite where all features are 0, where the package returns NaN; there is
        no dropout in training.

    Args:
        trunk: `alex` (the package's default and the faster one) or `vgg` (used by VQGAN's loss).

    Raises:
        ValueError: If the trunk is unknown.
        FileNotFoundError: If the weight file does not exist. The message says which command creates it.
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
        # Mean and standard deviation of ImageNet, converted from [0, 1] to [-1, 1] and rounded, as published.
        self.freeze("shift", torch.tensor([-0.030, -0.088, -0.188], device="cpu").reshape(1, 3, 1, 1))
        self.freeze("scale", torch.tensor([0.458, 0.448, 0.450], device="cpu").reshape(1, 3, 1, 1))
        for name, tensor in pretrained.tensors(f"lpips/{trunk}.safetensors").items():
            self.freeze(name, tensor)
        heads = sum(step == "tap" for step in _STEPS[trunk])
        self.channels: tuple[int, ...] = tuple(
            self.get_buffer(f"head_{i}_weight").shape[1] for i in range(heads)
        )

    def forward(
        self,
        reconstruction: Float[Tensor, "b 3 h w"],
        image: Float[Tensor, "b 3 h w"],
        *,
        in_autocast: bool = False,
    ) -> Float[Tensor, "b"]:
        """Computes the distance between each reconstruction and its image: 0 if they are equal, about 0..1.

        Args:
            reconstruction: Images in [-1, 1]. Gradients flow to them.
            image: Images in [-1, 1]. No gradients flow to them.
            in_autocast: Whether the trunk computes in the type of autocast, where that is on. The distances are
                always computed in float32.

        Raises:
            ValueError: If the images are too small for the trunk (31 px for alex, 16 px for vgg).
        """
        smallest = min(image.shape[-2:])
        if smallest < _MIN_SIZE[self.trunk]:
            raise ValueError(
                f"LPIPSNetwork: expected images of at least {_MIN_SIZE[self.trunk]} px for {self.trunk}, got "
                f"{smallest} px; resize them, or use another loss or metric"
            )
        with nullcontext() if in_autocast else without_autocast(image):
            with torch.no_grad():
                wanted = self.pyramid(image)
            found = self.pyramid(reconstruction)
        with without_autocast(image):
            distance = self.shift.new_zeros(len(image))
            for index, (a, b) in enumerate(zip(found, wanted, strict=True)):
                difference = (self._unit_length(a) - self._unit_length(b)).square()
                weighted = F.conv2d(difference, self.get_buffer(f"head_{index}_weight"))
                distance = distance + weighted.mean(dim=(1, 2, 3))
            return distance

    def pyramid(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Computes the trunk's features of images in [-1, 1], after the ReLUs at five depths, shallowest first."""
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

    def _unit_length(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        exact = features.to(self.shift.dtype)
        # The clamp keeps the gradient of the root finite at 0. It changes no value, because 1e-10 dominates its root.
        squared = exact.square().sum(dim=1, keepdim=True).clamp_min(torch.finfo(exact.dtype).tiny)
        return exact / (squared.sqrt() + 1e-10)
