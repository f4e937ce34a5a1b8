"""Teachers as the encoders of tokenizers."""

from einops import rearrange
from jaxtyping import Float, Float32
from torch import Tensor, nn

from vq.networks.sizes import check_counts, check_divisible
from vq.networks.teachers.base import Teacher, resized
from vq.registry import ENCODERS


@ENCODERS.register_module()
class TeacherEncoder(nn.Module):
    """Encodes an image as the features of a frozen teacher, one per patch.

    There is nothing to train, and the weights are in no state dict: a run's config holds the teacher's name and the
    SHA-256 of its weight file.

    Args:
        teacher: The network. It has no `image_size`, so that the number of features depends on the size of the image.
        downsample_factor: The factor between the size of the image and that of the grid of features; None takes the
            teacher's. With another one, images are first resized (bicubic, antialiased): a teacher with patches of
            14 px and a factor of 16 gives 16 x 16 features of an image of 256 px, which it sees at 224 px.

    Raises:
        ValueError: If the teacher has an `image_size`.
    """

    def __init__(self, *, teacher: Teacher, downsample_factor: int | None = None) -> None:
        super().__init__()
        if teacher.image_size is not None:
            raise ValueError(
                f"TeacherEncoder: expected a teacher that takes images in their own size, got image_size="
                f"{teacher.image_size}; leave it out, and set the encoder's downsample_factor to resize images"
            )
        self.teacher = teacher
        self.out_channels = teacher.channels
        self.downsample_factor = teacher.downsample_factor if downsample_factor is None else downsample_factor
        check_counts("TeacherEncoder", downsample_factor=self.downsample_factor)

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float32[Tensor, "b c h w"]:
        """Encodes images in [-1, 1]; no gradient flows to them.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("TeacherEncoder", image, self.downsample_factor)
        rows, columns = (side // self.downsample_factor for side in image.shape[2:])
        seen = resized(
            image, (rows * self.teacher.downsample_factor, columns * self.teacher.downsample_factor)
        )
        return rearrange(self.teacher(seen), "b h w c -> b c h w")
