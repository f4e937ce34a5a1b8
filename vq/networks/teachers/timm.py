"""Teachers from timm: CLIP, OpenCLIP, DINO, DINOv2, MAE, supervised vision transformers, EVA and ConvNeXt."""

import torch
from jaxtyping import Float
from torch import Tensor

from vq.known_weights import AS_PUBLISHED
from vq.networks.frozen.timm_trunk import TimmTrunk, keep_as_buffers
from vq.networks.teachers.base import Teacher, check_image_size
from vq.registry import TEACHERS


@TEACHERS.register_module()
class TimmTeacher(Teacher):
    """Computes the patch features of a frozen vision transformer or ConvNeXt of timm.

    A vision transformer gives its patch tokens after the last norm; class and register tokens are dropped. A ConvNeXt
    gives its last feature map. Images are normalized as the weights expect. `vq weights` fetches the files of these:

    | name | group | channels | patch |
    |---|---|---|---|
    | `vit_base_patch16_clip_quickgelu_224.openai` | clip | 768, projected 512 | 16 |
    | `vit_large_patch14_clip_224.laion2b` | openclip | 1024, projected 768 | 14 |
    | `vit_gigantic_patch14_clip_224.laion2b` | openclip | 1664, projected 1280 | 14 |
    | `vit_base_patch16_224.dino` | dino | 768 | 16 |
    | `vit_base_patch14_reg4_dinov2.lvd142m` | dinov2 | 768 | 14 |
    | `vit_base_patch16_224.mae` | mae | 768 | 16 |
    | `vit_base_patch16_224` (of torchvision) | vit | 768 | 16 |
    | `convnext_base` (of torchvision) | convnext | 1024 | 32 |
    | `eva02_base_patch14_224.mim_in22k` | eva | 768 | 14 |

    Differs from the source: position embeddings are interpolated as timm does it (bicubic, antialiased), where some
        publishers do not antialias. Nothing is interpolated if images have the size of the training.

    Args:
        name: The name that timm has for a network and its weights. Networks of the same architecture differ in how
            images are normalized.
        weights: The weight file (safetensors, or tensors saved by torch), in timm's layout or that of its publisher:
            a path, a path below the pretrained folder, or `published` for the file that `vq weights` fetches.
        sha256: The SHA-256 of the file, in hexadecimal; None accepts any file.
        image_size: The height and width, in pixels, to which images are resized (antialiased; bicubic or bilinear, as
            in the training of the network); None leaves them in their size.
        with_projection: Whether the projection of a CLIP model to the space of its texts follows.

    Raises:
        MissingPackageError: If timm is not installed; the extra `teachers` installs it.
        FileNotFoundError: If the weight file does not exist. The message says which command fetches it.
        ValueError: If the network does not exist, is of another kind or has no projection; the file does not hold its
            weights; or `image_size` is not a multiple of the patch size.
    """

    def __init__(
        self,
        *,
        name: str,
        weights: str = AS_PUBLISHED,
        sha256: str | None = None,
        image_size: int | None = None,
        with_projection: bool = False,
    ) -> None:
        super().__init__()
        with torch.device("cpu"):
            self.trunk = TimmTrunk(
                place="TimmTeacher",
                name=name,
                weights=weights,
                sha256=sha256,
                with_projection=with_projection,
            )
        check_image_size("TimmTeacher", image_size, self.trunk.downsample_factor)
        self.channels, self.downsample_factor = self.trunk.channels, self.trunk.downsample_factor
        self.image_size, self.interpolation = image_size, self.trunk.interpolation
        keep_as_buffers(self.trunk)
        self.eval()

    def features(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b rows columns channels"]:
        """Computes the features of images in [-1, 1] whose sides are multiples of `downsample_factor`."""
        features: Tensor = self.trunk(image)
        return features
