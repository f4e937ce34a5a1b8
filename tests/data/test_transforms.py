"""Transforms: pixels compared with Pillow, random choices with their distribution, all from the generator."""

import numpy as np
import pytest
import torch
from PIL import Image

from vq.data import (
    Augmentation,
    CenterCrop,
    DataError,
    ImageFolder,
    ImageLoader,
    PhotoDataset,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from vq.data.transforms import ImageTooLargeError
from vq.ops.keyed import generator


def coordinates(height, width):
    """Makes an image whose pixels encode their positions."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    return torch.stack([rows, columns, rows])


@pytest.fixture(scope="module")
def photo():
    return PhotoDataset(split="val", crop_size=256).read(0)[:, :200, :]


@pytest.mark.parametrize("size", [64, 150, 224])
def test_resize_is_pillows_antialiased_bicubic(photo, size):
    resized = Resize(size=size)(photo, generator(0))
    assert resized.shape == (3, size, int(size * 256 / 200))
    pillow = Image.fromarray(photo.permute(1, 2, 0).numpy()).resize(
        (resized.shape[2], size), Image.Resampling.BICUBIC
    )
    difference = np.abs(resized.permute(1, 2, 0).numpy().astype(int) - np.asarray(pillow).astype(int))
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-4
    assert difference.mean() < 0.01


def test_resize_takes_the_shorter_side_and_leaves_what_fits():
    assert Resize(size=10)(coordinates(40, 20), generator(0)).shape == (3, 20, 10)
    assert Resize(size=10)(coordinates(20, 40), generator(0)).shape == (3, 10, 20)
    image = coordinates(10, 17)
    assert torch.equal(Resize(size=10)(image, generator(0)), image)


def test_center_crop_cuts_the_middle():
    cut = CenterCrop(size=4)(coordinates(10, 7), generator(0))
    assert cut[0, :, 0].tolist() == [3, 4, 5, 6]
    assert cut[1, 0].tolist() == [1, 2, 3, 4]


def test_random_crop_reaches_every_place_equally_often():
    crops = [RandomCrop(size=4)(coordinates(6, 5), generator(i)) for i in range(1200)]
    assert all(crop.shape == (3, 4, 4) for crop in crops)
    corners = torch.tensor([[int(crop[0, 0, 0]), int(crop[1, 0, 0])] for crop in crops])
    counts = torch.bincount(corners[:, 0] * 2 + corners[:, 1], minlength=6)
    assert len(counts) == 6
    assert counts.min() > 150  # 200 expected, standard deviation 13


def test_random_crop_of_the_whole_image_is_the_image():
    assert torch.equal(RandomCrop(size=8)(coordinates(8, 8), generator(0)), coordinates(8, 8))


@pytest.mark.parametrize("crop", [CenterCrop(size=8), RandomCrop(size=8)])
@pytest.mark.parametrize(("height", "width"), [(7, 9), (9, 7)])
def test_an_image_smaller_than_the_crop_is_refused(crop, height, width):
    with pytest.raises(
        ValueError,
        match=rf"Crop: expected .* at least 8x8, got {height}x{width}; put Resize\(size=8\) before it",
    ):
        crop(coordinates(height, width), generator(0))


@pytest.mark.parametrize(("p", "low", "high"), [(0.0, 0, 0), (0.25, 0.2, 0.3), (1.0, 1, 1)])
def test_flip_mirrors_with_its_probability(p, low, high):
    image = coordinates(3, 4)
    flipped = [RandomHorizontalFlip(p=p)(image, generator(i)) for i in range(1000)]
    assert all(torch.equal(one, image) or torch.equal(one, image.flip(2)) for one in flipped)
    assert low <= np.mean([not torch.equal(one, image) for one in flipped]) <= high


def test_resized_crop_draws_area_and_proportions_within_bounds():
    transform = RandomResizedCrop(size=16, scale=(0.2, 0.6), ratio=(0.5, 2.0))
    rectangles = [transform._rectangle(coordinates(200, 240), generator(i)) for i in range(500)]
    y, x, height, width = (np.array(values) for values in zip(*rectangles, strict=True))
    assert (y >= 0).all()
    assert (x >= 0).all()
    assert (y + height <= 200).all()
    assert (x + width <= 240).all()
    area, log_ratio = height * width / (200 * 240), np.log(width / height)
    assert 0.19 < area.min() < 0.23
    assert 0.55 < area.max() < 0.61
    assert area.mean() == pytest.approx(0.4, abs=0.02)
    assert abs(log_ratio.mean()) < 0.08
    assert -0.71 < log_ratio.min() < -0.6
    assert 0.6 < log_ratio.max() < 0.71
    assert transform(coordinates(200, 240), generator(0)).shape == (3, 16, 16)


def test_resized_crop_of_everything_is_a_resize(photo):
    square = photo[:, :200, :200]
    resized = RandomResizedCrop(size=64, scale=(1.0, 1.0), ratio=(1.0, 1.0))(square, generator(0))
    assert torch.equal(resized, Resize(size=64)(square, generator(0)))


@pytest.mark.parametrize(("height", "width", "expected"), [(4, 100, (4, 8)), (100, 4, (8, 4))])
def test_resized_crop_falls_back_to_the_middle_of_a_strip(height, width, expected):
    transform = RandomResizedCrop(size=16, scale=(0.9, 1.0), ratio=(0.5, 2.0))
    y, x, h, w = transform._rectangle(coordinates(height, width), generator(0))
    assert (h, w) == expected
    assert (y, x) == ((height - h) // 2, (width - w) // 2)


@pytest.mark.parametrize(
    "transform",
    [RandomCrop(size=5), RandomHorizontalFlip(p=0.5), RandomResizedCrop(size=9)],
    ids=lambda t: type(t).__name__,
)
def test_all_randomness_is_the_generators(transform):
    image = coordinates(20, 30)
    before, copy = torch.get_rng_state(), image.clone()
    results = [[transform(image, generator("key", i)) for i in range(20)] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert len({one.numpy().tobytes() for one in results[0]}) > 1
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(image, copy)


@pytest.mark.parametrize("kind", [Resize, CenterCrop, RandomCrop, RandomResizedCrop])
def test_a_size_of_nothing_is_refused(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__}: expected a size of at least 1 pixel, got 0"):
        kind(size=0)


def test_impossible_bounds_are_refused():
    with pytest.raises(
        ValueError, match=r"RandomHorizontalFlip: expected a probability p in \[0, 1\], got 1.5"
    ):
        RandomHorizontalFlip(p=1.5)
    with pytest.raises(ValueError, match=r"RandomResizedCrop: expected 0 < scale.*got scale=\(0.5, 0.1\)"):
        RandomResizedCrop(size=8, scale=(0.5, 0.1))
    with pytest.raises(ValueError, match=r"RandomResizedCrop: expected 0 < ratio.*got ratio=\(2.0, 1.0\)"):
        RandomResizedCrop(size=8, ratio=(2.0, 1.0))


@pytest.mark.parametrize(("height", "width"), [(1, 20_000), (20_000, 1), (2, 3000), (1, 2**20)])
def test_a_resize_that_would_take_gigabytes_is_refused(height, width):
    with pytest.raises(
        ImageTooLargeError, match=rf"Resize: an image of {height}x{width} .* more than 67,108,864 in all"
    ):
        Resize(size=256)(torch.zeros(1, dtype=torch.uint8).expand(3, height, width), generator(0))


def test_a_long_panorama_is_resized():
    assert Resize(size=8)(coordinates(1, 200), generator(0)).shape == (3, 8, 1600)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "transforms",
    [
        (Resize(size=32), CenterCrop(size=32)),
        (Resize(size=32), RandomCrop(size=32), RandomHorizontalFlip(p=0.5)),
        (RandomHorizontalFlip(p=1.0), Resize(size=35), CenterCrop(size=32)),
    ],
    ids=["center", "random", "flip"],
)
def test_an_image_that_becomes_too_large_counts_as_undecodable(tmp_path, transforms, workers):
    for i in range(5):
        Image.new("RGB", (40, 40), (i, i, i)).save(tmp_path / f"{i}.png")
    Image.new("RGB", (90_000, 1)).save(tmp_path / "spacer.png")
    loader = ImageLoader(
        dataset=ImageFolder(root=tmp_path),
        transforms=transforms,
        batch_size=6,
        shuffle=False,
        num_workers=workers,
    )
    (batch,) = loader.pass_batches()
    assert (len(batch["key"]), batch["undecodable"]) == (5, ["spacer.png"])
    trained = next(loader.train_batches(seed=0))
    assert trained["key"].count("0.png") == 2  # the next image replaces it
    assert trained["undecodable"] == ["spacer.png"]


def test_a_resized_crop_of_a_line_is_small():
    crop = RandomResizedCrop(size=32)
    for shape in ((1, 20_000), (20_000, 1)):
        assert crop(coordinates(*shape), generator(0)).shape == (3, 32, 32)


class TestAugmentation:
    """Each kind against its parts, which use the same random numbers."""

    @pytest.mark.parametrize(
        ("kind", "parts"),
        [
            ("none", [Resize(size=48), CenterCrop(size=48)]),
            ("weak", [Resize(size=48), RandomCrop(size=48), RandomHorizontalFlip()]),
            ("strong", [RandomResizedCrop(size=48, scale=(0.8, 1.0)), RandomHorizontalFlip()]),
            ("default", [RandomResizedCrop(size=48, scale=(0.08, 1.0)), RandomHorizontalFlip()]),
        ],
    )
    def test_it_is_its_parts(self, photo, kind, parts):
        for seed in range(8):
            expected, source = photo, generator(seed)
            for part in parts:
                expected = part(expected, source)
            assert torch.equal(Augmentation(kind=kind, size=48)(photo, generator(seed)), expected)

    def test_only_those_that_resize_first_may_decode_at_a_lower_resolution(self):
        kinds = ("none", "weak", "strong", "default")
        assert [Augmentation(kind=kind, size=48).min_side for kind in kinds] == [48, 48, None, None]

    def test_another_kind_is_refused(self):
        with pytest.raises(
            DataError, match="Augmentation: expected kind 'none', 'weak', 'strong', 'default', got 'x'"
        ):
            Augmentation(kind="x", size=48)
