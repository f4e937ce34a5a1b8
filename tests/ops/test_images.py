"""Pixel ranges against the arithmetic in float64 NumPy; image grids; files."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from vq.data.decode import ImageDecoder
from vq.ops.images import (
    ChannelsError,
    as_rgb,
    checked_rgb,
    encodable,
    grid,
    preview,
    rgb_view,
    save_pixels,
    save_png,
    to_bytes,
    to_signed_unit,
    to_uint8,
    to_unit,
)

ALL_PIXELS = torch.arange(256, dtype=torch.uint8)


def test_signed_unit_is_the_affine_map():
    expected = np.arange(256, dtype=np.float64) / 127.5 - 1
    # A division and a subtraction of numbers up to 2, each rounded by half of the spacing at 2 in float32.
    rounding = 2 * np.spacing(np.float32(2)) / 2
    np.testing.assert_allclose(to_signed_unit(ALL_PIXELS).numpy(), expected, rtol=0, atol=rounding)
    assert to_signed_unit(ALL_PIXELS).dtype == torch.float32
    assert to_signed_unit(ALL_PIXELS)[[0, 255]].tolist() == [-1, 1]


def test_every_pixel_survives_the_round_trip():
    assert torch.equal(to_uint8(to_signed_unit(ALL_PIXELS)), ALL_PIXELS)


def test_uint8_is_the_nearest_pixel_and_not_the_next_lower_one():
    values = torch.linspace(-1, 1, 10_001)
    expected = np.rint((values.numpy().astype(np.float64) + 1) * 127.5)
    difference = to_uint8(values).numpy().astype(int) - expected
    assert np.abs(difference).max() <= 1  # float32 may round a tie to either side
    assert (difference != 0).mean() < 1e-3
    assert abs(float(to_uint8(values).double().mean()) - 127.5) < 0.01  # truncation would give 127.0


def test_ties_go_to_the_even_pixel():
    halves = torch.tensor(
        [value for value in torch.linspace(-1, 1, 511) if float((value + 1) * 255) % 2 == 1]
    )
    assert len(halves) > 50  # the number of the 255 midpoints that float32 represents exactly
    assert (to_uint8(halves) % 2 == 0).all()


def test_out_of_range_is_clamped_and_nan_is_black():
    values = torch.tensor([-7.0, -1.001, 1.001, 300.0, float("inf"), float("-inf"), float("nan")])
    assert to_uint8(values).tolist() == [0, 0, 255, 255, 255, 0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_from_its_own_value(dtype):
    values = torch.linspace(-1, 1, 301).to(dtype)
    assert torch.equal(to_uint8(values), to_uint8(values.float()))


def test_unit_range():
    assert to_unit(torch.tensor([-1.0, -0.5, 1.0])).tolist() == [0.0, 0.25, 1.0]
    assert to_unit(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


def test_grid_puts_every_image_where_it_belongs():
    images = torch.stack([torch.full((3, 4, 5), i, dtype=torch.uint8) for i in range(1, 6)])
    sheet = grid(images, columns=2)
    assert sheet.shape == (3, 3 * 4 + 2 * 2, 2 * 5 + 2)
    for i in range(5):
        y, x = i // 2 * 6, i % 2 * 7
        assert (sheet[:, y : y + 4, x : x + 5] == i + 1).all()
    assert (sheet[:, 4:6] == 128).all()
    assert (sheet[:, :, 5:7] == 128).all()
    assert (sheet[:, 12:, 7:] == 128).all()  # the empty position


def test_grid_of_fewer_images_than_columns_is_one_row():
    assert grid(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), columns=8).shape == (3, 4, 10)


@pytest.mark.parametrize(("count", "columns"), [(0, 2), (3, 0)])
def test_grid_refuses_nothing(count, columns):
    with pytest.raises(
        ValueError, match=f"grid: expected at least 1 image and 1 column, got {count} and {columns}"
    ):
        grid(torch.zeros(count, 3, 4, 4, dtype=torch.uint8), columns=columns)


def test_a_saved_png_holds_the_pixels(tmp_path):
    image = torch.randint(256, (3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_png(image, tmp_path / "new" / "a.png")
    stored = np.asarray(Image.open(tmp_path / "new" / "a.png"))
    assert np.array_equal(stored, image.permute(1, 2, 0).numpy())
    assert os.listdir(tmp_path / "new") == ["a.png"]


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    black, white = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.full((3, 8, 8), 255, dtype=torch.uint8)
    save_png(black, tmp_path / "a.png")
    original = Image.Image.save

    def runs_out_of_disk(self, path, **options):
        original(self, path, **options)
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", runs_out_of_disk)
    with pytest.raises(OSError, match="no space left"):
        save_png(white, tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"]
    assert np.asarray(Image.open(tmp_path / "a.png")).max() == 0


def test_float_pixels_are_rounded_as_the_metrics_round_them():
    pixels = torch.cat([torch.linspace(0, 255, 4097), ALL_PIXELS.float()])
    assert torch.equal(to_bytes(pixels), to_uint8(to_signed_unit(pixels)))
    assert (to_bytes(pixels).double() - pixels.double()).abs().max() <= 0.5001
    assert to_bytes(ALL_PIXELS) is ALL_PIXELS
    assert encodable(ALL_PIXELS) is ALL_PIXELS
    assert torch.equal(encodable(ALL_PIXELS.float()), to_signed_unit(ALL_PIXELS))


def numbered(channels: int) -> torch.Tensor:
    """An image of 2 x 2 whose channel i is full of 10 i + 10."""
    return (10 * torch.arange(1, channels + 1, dtype=torch.uint8)).reshape(-1, 1, 1).repeat(1, 2, 2)


@pytest.mark.parametrize(
    ("channels", "rgb", "shown"),
    [
        (1, None, [10]),
        (1, (0, 0, 0), [10, 10, 10]),
        (2, None, [10]),
        (2, (1, 0, 1), [20, 10, 20]),
        (3, None, [10, 20, 30]),
        (3, (2, 1, 0), [30, 20, 10]),
        (4, None, [10, 20, 30, 40]),
        (5, None, [10, 20, 30]),
        (16, (15, 7, 3), [160, 80, 40]),
    ],
)
def test_a_preview_shows_what_a_png_can_hold(channels, rgb, shown, tmp_path):
    for image in (numbered(channels), numbered(channels).float() + 0.2, numbered(channels)[None]):
        picture = preview(image, rgb)
        assert picture.shape == (*image.shape[:-3], len(shown), 2, 2)
        assert picture[..., 0, 0].flatten().tolist() == shown
    save_png(preview(numbered(channels), rgb), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == {1: "L", 3: "RGB", 4: "RGBA"}[len(shown)]
        assert np.atleast_1d(np.asarray(stored)[0, 0]).tolist() == shown


def test_rgb_pictures_repeat_grey_and_composite_transparency_on_white():
    assert as_rgb(numbered(1))[:, 0, 0].tolist() == [10, 10, 10]
    assert as_rgb(numbered(7), (6, 5, 4))[:, 0, 0].tolist() == [70, 60, 50]
    draws = torch.Generator().manual_seed(0)
    image = torch.randint(256, (4, 64, 64), dtype=torch.uint8, generator=draws)
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
    white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
    expected = np.asarray(Image.alpha_composite(white, pixels).convert("RGB")).astype(int)
    # Pillow rounds the product of each colour and its transparency in integers.
    assert np.abs(as_rgb(image).permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_saved_pixels_are_read_again_in_all_channels(channels, tmp_path):
    draws = torch.Generator().manual_seed(0)
    image = torch.randint(256, (channels, 5, 7), dtype=torch.uint8, generator=draws)
    files = save_pixels(image, tmp_path / "new" / "a.png")
    names = ["a.png"] if channels in (1, 3, 4) else ["a.png", "a.npy"]
    assert [file.name for file in files] == names
    assert sorted(os.listdir(tmp_path / "new")) == sorted(names)
    assert torch.equal(ImageDecoder(channels=channels).read(files[-1]), image)


def test_a_view_selects_channels_or_is_refused():
    image = torch.rand(2, 6, 4, 4)
    assert torch.equal(rgb_view("X", image, (5, 0, 0)), image[:, [5, 0, 0]])
    assert rgb_view("X", image[:, :3], None).data_ptr() == image.data_ptr()
    with pytest.raises(
        ChannelsError, match=r"X: expected images of 3 channels, .*RGB.* got images of 6; set rgb"
    ):
        rgb_view("X", image, None)
    with pytest.raises(
        ChannelsError, match=r"got images of 1; set rgb .* \(0, 0, 0\) to repeat the grey channel"
    ):
        rgb_view("X", image[:, :1], None)
    with pytest.raises(ChannelsError, match=r"X: expected rgb to name channels from 0 to 5, got \(0, 1, 6\)"):
        rgb_view("X", image, (0, 1, 6))
    with pytest.raises(ChannelsError, match="pictures: expected rgb to name channels from 0 to 5"):
        preview(image, (0, 1, 6))
    with pytest.raises(ChannelsError, match=r"save_png: expected an image of 1, 3 or 4 channels, got 6"):
        save_png(numbered(6), "never.png")


@pytest.mark.parametrize("rgb", [(0, 1), (0, 1, -1), (0, 1, 2, 3), (True, 0, 0)])
def test_a_view_has_three_numbers(rgb):
    with pytest.raises(
        ChannelsError, match="X: expected rgb to be the numbers of three channels, counted from 0"
    ):
        checked_rgb("X", rgb)
