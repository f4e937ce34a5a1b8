"""Every kind of image file there is, made here, against the pixels it was made from."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vq.data import PhotoDataset, UndecodableImage
from vq.data.decode import decode_image, read_image


@pytest.fixture(scope="module")
def photo():
    """A real crop, 96 wide and 64 high, as a Pillow image."""
    crop = PhotoDataset(split="val", crop_size=96).read(0)[:, :64, :]
    return Image.fromarray(crop.permute(1, 2, 0).numpy())


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image):
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("PPM", {})],
)
def test_lossless_formats_give_the_pixels_back(photo, kind, options):
    assert torch.equal(decode_image(encoded(photo, kind, **options), "a"), pixels(photo))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_comes_near_the_pixels(photo, mode, options):
    decoded = decode_image(encoded(photo.convert(mode), "JPEG", quality=97, **options), "a")
    assert (decoded.int() - pixels(photo.convert(mode)).int()).abs().float().mean() < 2.5


def test_cmyk_jpeg_gives_the_colours_back(photo):
    decoded = decode_image(encoded(photo.convert("CMYK"), "JPEG", quality=100), "a")
    assert decoded.shape == (3, 64, 96)
    assert (decoded.int() - pixels(photo).int()).abs().float().mean() < 2  # inverted would be over 50


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_stand_upright(photo, kind, orientation):
    data = encoded(photo, kind, exif=exif(orientation))
    decoded = decode_image(data, "a")
    assert decoded.shape == ((3, 64, 96) if orientation < 5 else (3, 96, 64))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert torch.equal(decoded, pixels(upright))


def test_grey_is_repeated(photo):
    grey = photo.convert("L")
    decoded = decode_image(encoded(grey, "PNG"), "a")
    assert torch.equal(decoded, torch.from_numpy(np.array(grey)).expand(3, -1, -1))


def test_one_bit_is_black_and_white(photo):
    decoded = decode_image(encoded(photo.convert("1"), "PNG"), "a")
    assert set(decoded.unique().tolist()) == {0, 255}


def test_palette(photo):
    palette = photo.quantize(64)
    assert torch.equal(decode_image(encoded(palette, "PNG"), "a"), pixels(palette))


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("TIFF", "RGBA"), ("TIFF", "LA"), ("WEBP", "RGBA")]
)
def test_transparency_lies_on_white(photo, kind, mode):
    alpha = Image.linear_gradient("L").resize(photo.size)
    image = photo.convert(mode)
    image.putalpha(alpha)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    decoded = decode_image(encoded(image, kind, **options), "a").numpy().astype(np.float64)
    share = np.asarray(alpha)[None] / 255
    expected = pixels(image).numpy() * share + 255 * (1 - share)
    assert np.abs(decoded - expected).max() <= 1


def test_a_transparent_palette_entry_lies_on_white(photo):
    palette = photo.quantize(16)
    decoded = decode_image(encoded(palette, "PNG", transparency=3), "a")
    hidden = torch.from_numpy(np.array(palette)) == 3
    assert hidden.any()
    assert (decoded[:, hidden] == 255).all()
    assert torch.equal(decoded[:, ~hidden], pixels(palette)[:, ~hidden])


def test_a_transparent_colour_lies_on_white():
    image = Image.fromarray(np.array([[[1, 2, 3], [9, 8, 7]]], dtype=np.uint8))
    decoded = decode_image(encoded(image, "PNG", transparency=(1, 2, 3)), "a")
    assert decoded[:, 0].T.tolist() == [[255, 255, 255], [9, 8, 7]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    decoded = decode_image(encoded(Image.fromarray(deep), kind), "a")
    assert torch.equal(decoded[0], decoded[2])
    assert np.array_equal(decoded[0].numpy(), np.rint(deep / 257.0).astype(np.uint8))


def test_sixteen_bit_colour_is_scaled():
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    decoded = decode_image(_sixteen_bit_png(deep), "a").permute(1, 2, 0).numpy()
    assert np.abs(decoded - deep / 257.0).max() <= 1


def _sixteen_bit_png(deep):
    """Pillow cannot write one, so here it is by hand, from the PNG specification."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width, _ = deep.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(data)).n_frames == 3
        assert decode_image(data, "a")[:, 0, 0].tolist() == [255, 0, 0]


def test_the_format_is_told_from_the_content(photo, tmp_path):
    path = tmp_path / "n02105855_2933.JPEG"  # the name of ImageNet's PNG
    path.write_bytes(encoded(photo, "PNG"))
    assert torch.equal(read_image(path, "a"), pixels(photo))


def _half(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda photo: b"", "the file is empty"),
        (lambda photo: b"<html><body>404 Not Found</body></html>", "UnidentifiedImageError"),
        (lambda photo: b"\xff\xd8\xff", "UnidentifiedImageError"),
        (lambda photo: _half(encoded(photo, "JPEG")), "OSError: image file is truncated"),
        (lambda photo: _half(encoded(photo.convert("CMYK"), "JPEG")), "OSError: image file is truncated"),
        (lambda photo: _half(encoded(photo, "PNG")), "OSError|SyntaxError"),
        (lambda photo: _half(encoded(photo, "WEBP")), "OSError"),
        (lambda photo: _half(encoded(photo.quantize(9), "GIF")), "OSError|EOFError|IndexError"),
        (lambda photo: b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "Error"),
        (lambda photo: encoded(Image.new("F", (4, 4)), "TIFF"), "an image of floats has no known range"),
    ],
    ids=["empty", "html", "stump", "jpeg", "cmyk", "png", "webp", "gif", "zeros", "floats"],
)
def test_broken_files_are_named_with_a_reason(photo, broken, reason):
    with pytest.raises(UndecodableImage, match=rf"^cat/7: .*({reason})") as caught:
        decode_image(broken(photo), "cat/7")
    assert caught.value.name == "cat/7"


def test_a_decompression_bomb_is_refused(monkeypatch, photo):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UndecodableImage, match="DecompressionBomb"):
        decode_image(encoded(photo, "PNG"), "a")


def test_a_file_that_vanished_is_undecodable(tmp_path):
    with pytest.raises(UndecodableImage, match=r"^gone: cannot be read"):
        read_image(tmp_path / "gone.png", "gone")
