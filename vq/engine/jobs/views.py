"""The views of an image that are tokenized: the image, its mirror image, or ten crops."""

from jaxtyping import Shaped
from torch import Tensor

from vq.data import ADMCenterCrop, ImageLoader, TokenStoreError

TEN_CROP_SCALE = 1.1
VIEWS = {
    1: "the image",
    2: "the image, and its mirror image",
    10: "four corners and the centre of ADM's centre crop at 1.1 times the size, then those of its mirror image",
}
"""Number of views -> what they are, in order."""


def views_of(loader: ImageLoader, crops: int, size: tuple[int, int]) -> ImageLoader:
    """The loader of the images that `cut_views` cuts into views.

    Args:
        loader: Of single images.
        crops: Views per image: 1, 2 or 10.
        size: Height and width of a view.

    Raises:
        TokenStoreError: If there is no such number of views, or ten are wanted of images that are not square.
    """
    if crops not in VIEWS:
        raise TokenStoreError(f"--crops: expected one of {', '.join(map(str, VIEWS))}, got {crops}")
    if crops < 10:
        return loader
    if size[0] != size[1]:
        raise TokenStoreError(
            f"--crops 10: expected square images, got {size[0]} x {size[1]}; crop them in val_data"
        )
    larger = int(size[0] * TEN_CROP_SCALE)  # 281 pixels for 256: LlamaGen rounds 281.6 down
    return ImageLoader(
        dataset=loader.dataset,
        transforms=[ADMCenterCrop(size=larger)],
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        shuffle=False,
        max_undecodable=loader.max_undecodable,
    )


def cut_views(
    image: Shaped[Tensor, "b channels h w"], crops: int, size: tuple[int, int]
) -> list[Shaped[Tensor, "b channels height width"]]:
    """Cuts images into their views, in the order of `VIEWS`."""
    if crops == 1:
        return [image]
    if crops == 2:
        return [image, image.flip(-1)]
    from torchvision.transforms.v2 import functional  # its import takes as long as that of torch

    return [*functional.five_crop(image, list(size)), *functional.five_crop(image.flip(-1), list(size))]
