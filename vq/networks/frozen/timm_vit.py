"""The features of a frozen vision transformer of timm, such as DINO."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq.known_weights import AS_PUBLISHED
from vq.networks.frozen.base import FrozenWeights
from vq.networks.frozen.timm_layouts import is_of_torchvision
from vq.networks.frozen.timm_trunk import colours, create, keep_as_buffers, load, weight_file
from vq.registry import FEATURE_NETWORKS

_PARTS = ("forward_intermediates", "patch_embed", "blocks")


@FEATURE_NETWORKS.register_module()
class TimmViTFeatures(FrozenWeights):
    """Computes the tokens after some blocks of a frozen vision transformer, as feature maps.

    Images are resized (bilinear, antialiased) and normalized with the mean and standard deviation that timm lists
    for the network; position embeddings are interpolated to the image size. Gradients flow to the image. The network
    is a `FeaturePyramid`, which `DINODiscriminator` and `FeatureLoss` take. A gradient penalty needs second
    derivatives, which fused attention does not have: set TIMM_FUSED_ATTN=0 in the environment.

    Source: Caron et al. 2021 (DINO), https://arxiv.org/abs/2104.14294, for the default network.
    Differs from the source: the class token is dropped, and no norm follows the blocks.

    Args:
        name: The name of a vision transformer of timm.
        weights: The weight file (safetensors, or tensors saved by torch), in timm's layout or that of its publisher: a
            path, a path below the pretrained folder, or `published` for the file that `vq weights` fetches.
        sha256: The SHA-256 of the file, in hexadecimal; None accepts any file.
        blocks: The numbers of the blocks whose outputs are used, counted from 0, in ascending order.
        image_size: The height and width, in pixels, to which images are resized.

    Raises:
        MissingPackageError: If timm is not installed; the extra `teachers` installs it.
        FileNotFoundError: If the weight file does not exist. The message says which command fetches it.
        ValueError: If the transformer or a block does not exist, the file holds the weights of another network, or
            `image_size` is not a multiple of the patch size.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        name: str = "vit_small_patch16_224.dino",
        weights: str = AS_PUBLISHED,
        sha256: str | None = None,
        blocks: Sequence[int] = (2, 5, 8, 11),
        image_size: int = 224,
    ) -> None:
        super().__init__()
        # Frozen weights are always read to the CPU, even if other modules are constructed on the meta device.
        with torch.device("cpu"):
            file = weight_file("TimmViTFeatures", name, weights)
            self.trunk = create("TimmViTFeatures", name, num_classes=0)
            if not all(hasattr(self.trunk, part) for part in _PARTS):
                raise ValueError(
                    f"TimmViTFeatures: expected a vision transformer of timm, got {name!r}; take another name"
                )
            found = load("TimmViTFeatures", self.trunk, name, file, sha256)
        patch = int(self.trunk.patch_embed.patch_size[0])
        depth = len(self.trunk.blocks)
        if not blocks or sorted(set(blocks)) != list(blocks) or not 0 <= blocks[0] <= blocks[-1] < depth:
            raise ValueError(
                f"TimmViTFeatures: expected blocks to be ascending numbers from 0 to {depth - 1}, got {tuple(blocks)}; "
                f"{name} has {depth} blocks"
            )
        if image_size < patch or image_size % patch:
            raise ValueError(
                f"TimmViTFeatures: expected image_size to be a multiple of the patch size {patch}, got {image_size}; "
                f"take {max(1, image_size // patch) * patch}"
            )
        self.blocks, self.image_size = tuple(blocks), image_size
        self.channels: tuple[int, ...] = (int(self.trunk.embed_dim),) * len(self.blocks)
        for key, values in zip(
            ("mean", "deviation"), colours(self.trunk, of_torchvision=is_of_torchvision(found)), strict=True
        ):
            tensor = torch.tensor(values, dtype=torch.float32, device="cpu").reshape(1, 3, 1, 1)
            self.freeze(key, tensor)
        keep_as_buffers(self.trunk.eval())

    def pyramid(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Computes one feature map per block of images in [-1, 1], from the shallowest to the deepest."""
        if tuple(image.shape[2:]) != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        x = ((image.to(self.mean.dtype) + 1) / 2 - self.mean) / self.deviation
        maps: list[Tensor] = self.trunk.forward_intermediates(
            x, indices=list(self.blocks), norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return maps
