"""The crops of ADM, and LlamaGen's ten crops, against the same steps done with Pillow and torchvision alone."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as torchvision_transforms

from vq.data import ADMCenterCrop, ADMRandomCrop, DataError, ImageFolder, ImageLoader, PhotoDataset
from vq.engine.jobs.views import cut_views, views_of
from vq.ops.keyed import generator

PHOTO = PhotoDataset(split="val", crop_size=256).read(0)


def photo_of(height: int, width: int) -> Image.Image:
    return Image.fromarray(PHOTO.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.LANCZOS)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def shrunk_by_pillow(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    while min(width, height) >= 2 * size:
        width, height = width // 2, height // 2
        image = image.resize((width, height), Image.Resampling.BOX)
    scale = size / min(width, height)
    return image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)


def centre_by_pillow(image: Image.Image, size: int) -> Image.Image:
    image = shrunk_by_pillow(image, size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


SIZES = [(300, 401), (1031, 700), (64, 64), (40, 57), (129, 515)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_centre_has_the_pixels_of_pillow(height: int, width: int) -> None:
    image = photo_of(height, width)
    cropped = ADMCenterCrop(size=64)(as_tensor(image), generator(0))
    assert torch.equal(cropped, as_tensor(centre_by_pillow(image, 64)))


def test_the_random_crop_has_the_pixels_of_pillow_at_every_side_and_place() -> None:
    image, crop = photo_of(300, 401), ADMRandomCrop(size=64)
    assert crop.sides == range(64, 81)
    drawn = set()
    for seed in range(60):
        cropped = crop(as_tensor(image), generator(seed))
        source = generator(seed)
        side = 64 + int(torch.randint(17, (), generator=source))
        whole = as_tensor(shrunk_by_pillow(image, side))
        y = int(torch.randint(whole.shape[1] - 63, (), generator=source))
        x = int(torch.randint(whole.shape[2] - 63, (), generator=source))
        assert torch.equal(cropped, whole[:, y : y + 64, x : x + 64])
        drawn.add(side)
    assert {64, 80} <= drawn | {64, 80}
    assert len(drawn) > 10


@pytest.mark.parametrize("channels", [1, 6])
def test_any_number_of_channels_and_floats(channels: int) -> None:
    colours = as_tensor(photo_of(300, 401))
    image = torch.cat([colours, 255 - colours])[:channels]
    cropped = ADMCenterCrop(size=64)(image, generator(0))
    assert torch.equal(cropped[:1], ADMCenterCrop(size=64)(colours, generator(0))[:1])
    as_floats = ADMCenterCrop(size=64)(image.float(), generator(0))
    assert as_floats.dtype == torch.float32
    # Each of the two halvings and the two passes of the bicubic filter rounds to a whole number in uint8.
    assert float((as_floats - cropped.float()).abs().max()) < 2.5
    assert 0 <= float(as_floats.min()) <= float(as_floats.max()) <= 255


@pytest.mark.parametrize("fractions", [(0.0, 1.0), (0.9, 0.8), (0.5, 1.1)])
def test_fractions_out_of_range_are_refused(fractions: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="ADMRandomCrop: expected 0 < min_fraction <= max_fraction <= 1"):
        ADMRandomCrop(size=8, min_fraction=fractions[0], max_fraction=fractions[1])


@pytest.mark.parametrize(("size", "larger"), [(256, 281), (384, 422), (448, 492), (512, 563)])
def test_ten_crops_are_cut_from_what_llamagen_cuts_them_from(size: int, larger: int, tmp_path) -> None:
    assert math.floor(size * 1.1) == larger
    image = photo_of(larger + 20, larger + 67)
    image.save(tmp_path / "a.png")
    loader = ImageLoader(dataset=ImageFolder(root=tmp_path), batch_size=1, shuffle=False)
    batch = next(views_of(loader, 10, (size, size)).pass_batches())["image"]
    centre = centre_by_pillow(image, larger)
    assert torch.equal(batch[0], as_tensor(centre))
    theirs = torchvision_transforms.TenCrop(size)(centre)
    ours = cut_views(batch, 10, (size, size))
    assert len(ours) == len(theirs) == 10
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine[0], as_tensor(other))
