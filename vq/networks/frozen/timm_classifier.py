"""The class scores of a frozen classifier of timm, such as ResNet-50."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq.known_weights import AS_PUBLISHED
from vq.networks.frozen.base import FrozenWeights
from vq.networks.frozen.timm_trunk import colours, create_classifier, keep_as_buffers, load, weight_file
from vq.networks.sizes import check_counts
from vq.registry import FEATURE_NETWORKS


@FEATURE_NETWORKS.register_module()
class TimmClassifier(FrozenWeights):
    """Computes the class scores of a frozen classifier, such as ResNet-50 or ConvNeXt-S.

    Images are resized to a square (bilinear, antialiased) and normalized as timm lists for the weights; a name without
    weights, such as `resnet50`, stands for those of torchvision, which expect the mean and deviation of ImageNet.
    Gradients flow to the image. The network is an `ImageClassifier`, which `LogitsLoss` takes.

    Source: He et al. 2016, https://arxiv.org/abs/1512.03385, for the default network.
    Differs from the source: images are resized to a square, not cropped.

    Args:
        name: The name of a classifier of timm: `resnet50` (MaskBit), `convnext_small` (1d-tokenizer), ...
        weights: The weight file (safetensors, or tensors saved by torch), in timm's layout or that of its publisher: a
            path, a path below the pretrained folder, or `published` for the file that `vq weights` fetches.
        sha256: The SHA-256 of the file, in hexadecimal; None accepts any file.
        image_size: The height and width, in pixels, to which images are resized.

    Raises:
        MissingPackageError: If timm is not installed; the extra `teachers` installs it.
        FileNotFoundError: If the weight file does not exist. The message says which command fetches it.
        ValueError: If timm does not know the network, it has no classes, the file holds the weights of another network,
            or `image_size` is below 1.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        name: str = "resnet50",
        weights: str = AS_PUBLISHED,
        sha256: str | None = None,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        check_counts("TimmClassifier", image_size=image_size)
        self.image_size = image_size
        # Frozen weights are always read to the CPU, even if other modules are constructed on the meta device.
        with torch.device("cpu"):
            file = weight_file("TimmClassifier", name, weights)
            self.network = create_classifier("TimmClassifier", name)
            load("TimmClassifier", self.network, name, file, sha256)
            statistics = colours(self.network, of_torchvision="." not in name)
            for key, values in zip(("mean", "deviation"), statistics, strict=True):
                self.freeze(key, torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1))
        keep_as_buffers(self.network.eval())

    def logits(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Computes the class scores of images in [-1, 1]."""
        size = (self.image_size, self.image_size)
        if tuple(image.shape[2:]) != size:
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        scores: Tensor = self.network(((image.to(self.mean.dtype) + 1) / 2 - self.mean) / self.deviation)
        return scores
