"""Encoders of tokenizers from teachers: frozen, or trained further from a teacher's weights."""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.known_weights import AS_PUBLISHED
from vq.networks.frozen.timm_trunk import TimmTrunk
from vq.networks.sizes import check_counts, check_divisible
from vq.networks.teachers.base import Teacher
from vq.ops.images import check_rgb, checked_rgb, rgb_view
from vq.registry import ENCODERS


@ENCODERS.register_module()
class TeacherEncoder(nn.Module):
    """Encodes an image as the features of a frozen teacher, one per patch.

    There is nothing to train, and the weights are in no state dict: a run's config holds the teacher's name and the
    SHA-256 of its weight file.

    Args:
        teacher: The network. It has no `image_size`, so that the number of features depends on the size of the image.
        downsample_factor: The factor between the size of the image and that of the grid of features; None takes the
            teacher's. With another one, images are first resized: a teacher with patches of 14 px and a factor of 16
            gives 16 x 16 features of an image of 256 px, which it sees at 224 px.
        image_channels: The number of channels of the images.
        rgb: The channels that the teacher sees as red, green and blue, such as (0, 0, 0) for grey images; None for
            images of 3 channels.

    Raises:
        ValueError: If the teacher has an `image_size`, a number is below 1, or `rgb` does not fit `image_channels`.
    """

    def __init__(
        self,
        *,
        teacher: Teacher,
        downsample_factor: int | None = None,
        image_channels: int = 3,
        rgb: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.image_channels, self.rgb = _checked_view("TeacherEncoder", image_channels, rgb)
        if teacher.image_size is not None:
            raise ValueError(
                f"TeacherEncoder: expected a teacher that takes images in their own size, got image_size="
                f"{teacher.image_size}; leave it out, and set the encoder's downsample_factor to resize images"
            )
        self.teacher, self.out_channels = teacher, teacher.channels
        self.downsample_factor = teacher.downsample_factor if downsample_factor is None else downsample_factor
        check_counts("TeacherEncoder", downsample_factor=self.downsample_factor)

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1] as features of the same type; no gradient flows to the images.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("TeacherEncoder", image, self.downsample_factor)
        rows, columns = (side // self.downsample_factor for side in image.shape[2:])
        patch = self.teacher.downsample_factor
        seen = rgb_view("TeacherEncoder", image, self.rgb)
        seen = self.teacher.resized(seen, (rows * patch, columns * patch))
        return rearrange(self.teacher(seen), "b h w c -> b c h w").to(image.dtype)


@ENCODERS.register_module()
class TimmEncoder(nn.Module):
    """Encodes an image with a vision transformer or ConvNeXt of timm, which is trained further from given weights.

    The parameters are ordinary ones and are in the state dict. A tokenizer that is loaded from a checkpoint takes them
    from there, and needs no other weight file. `TimmTeacher` lists networks and says which features they give.

    Args:
        name: The name that timm has for a network and its weights.
        weights: The weight file that training starts from: a path, a path below the pretrained folder, `published` for
            the file that `vq weights` fetches, or None for random weights.
        sha256: The SHA-256 of the file, in hexadecimal; None accepts any file.
        image_channels: The number of channels of the images.
        rgb: The channels that the network sees as red, green and blue, as for `TeacherEncoder`.

    Raises:
        MissingPackageError: If timm is not installed; the extra `teachers` installs it.
        FileNotFoundError: If the weight file does not exist. The message says which command fetches it.
        ValueError: If the network does not exist or is of another kind, the file does not hold its weights, or
            `rgb` does not fit `image_channels`.
    """

    def __init__(
        self,
        *,
        name: str,
        weights: str | None = AS_PUBLISHED,
        sha256: str | None = None,
        image_channels: int = 3,
        rgb: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.image_channels, self.rgb = _checked_view("TimmEncoder", image_channels, rgb)
        self.trunk = TimmTrunk(
            place="TimmEncoder", name=name, weights=weights, sha256=sha256, with_projection=False
        )
        self.out_channels, self.downsample_factor = self.trunk.channels, self.trunk.downsample_factor

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1].

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        return rearrange(self.trunk(rgb_view("TimmEncoder", image, self.rgb)), "b h w c -> b c h w")


def _checked_view(
    place: str, image_channels: int, rgb: Sequence[int] | None
) -> tuple[int, tuple[int, int, int] | None]:
    check_counts(place, image_channels=image_channels)
    view = checked_rgb(place, rgb)
    check_rgb(place, view, image_channels)
    return image_channels, view
