"""All kinds of image files, written by the test and compared with the original pixels."""

import io
import multiprocessing
import os
import resource
import socket
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vq.data import ImageFolder, PhotoDataset, UndecodableImage
from vq.data.colours import FORMATS, to_rgb
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
    """Writes the file by hand, from the PNG specification, because Pillow cannot."""

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
    with pytest.raises(UndecodableImage, match=rf"^{tmp_path}/gone.png: cannot be read"):
        read_image(f"{tmp_path}/gone.png")


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"],
)
def test_every_mode_of_pillow_becomes_rgb(mode):
    """Makes an image of a single colour, half transparent if the mode has transparency."""
    colour = Image.new("RGB", (3, 2), (200, 200, 200))
    if mode in ("La", "RGBa"):
        source = colour.convert("RGBA" if mode == "RGBa" else "LA")
        source.putalpha(51)
        image = source.convert(mode)
    else:
        image = colour.convert("P").convert("PA") if mode == "PA" else colour.convert(mode)
        if mode in ("LA", "RGBA", "PA"):
            image.putalpha(51)
    found = np.asarray(to_rgb(image)).astype(int)
    is_transparent = mode in ("LA", "La", "PA", "RGBA", "RGBa")
    expected = 255 if mode == "1" else 255 - (55 / 5 if is_transparent else 55)
    tolerance = {"1": 0, "La": 3, "RGBa": 3, "P": 26, "PA": 6}.get(mode, 2)  # a web palette has steps of 51
    assert found.shape == (2, 3, 3)
    if mode == "1":
        assert set(np.unique(found)) <= {0, 255}  # dithered
    else:
        assert np.abs(found - expected).max() <= tolerance


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_modes_without_a_known_range_are_refused(mode):
    with pytest.raises(ValueError, match=r"floats|integers of 32 bits|colours in LAB"):
        to_rgb(Image.new(mode, (2, 2)))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", [np.int32, np.float32, np.int16])
def test_tiffs_of_other_numbers_are_refused_by_name(kind, turned):
    deep = (np.arange(256).reshape(16, 16) * 100).astype(kind)
    if kind is np.int16:
        data = _tiff(deep.tobytes(), bits=16, sample_format=2)
    else:
        data = encoded(Image.fromarray(deep), "TIFF", **({"exif": exif(6)} if turned else {}))
    with pytest.raises(UndecodableImage, match=r"x\.tif: ValueError: an image of (floats|integers)"):
        decode_image(data, "x.tif")


def _tiff(pixels, *, bits, sample_format=1, photometric=1, side=16, order="<", extra=()):
    """Writes a grey TIFF with one strip by hand, from the TIFF 6.0 specification."""
    tags = [
        (256, 3, side),
        (257, 3, side),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, side),
        (279, 4, len(pixels)),
        (339, 3, sample_format),
        *extra,
    ]
    start = 8 + len(pixels)
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, 1)
        + (struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value))
        for tag, kind, value in sorted(tags)
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    body = magic + struct.pack(order + "I", start) + pixels
    return body + struct.pack(order + "H", len(tags)) + entries + b"\0" * 4


@pytest.mark.parametrize(("order", "photometric"), [("<", 0), ("<", 1), (">", 1)])
def test_sixteen_bit_tiffs_of_either_byte_order_and_polarity(order, photometric):
    deep = np.linspace(0, 65535, 256).reshape(16, 16).astype(order + "u2")
    decoded = decode_image(_tiff(deep.tobytes(), bits=16, photometric=photometric, order=order), "a")
    expected = np.rint(deep.astype(float) / 257)
    assert np.array_equal(decoded[0].numpy(), expected if photometric else 255 - expected)


def test_twelve_bit_tiffs_are_scaled_from_their_own_range():
    deep = np.linspace(0, 4095, 256).astype(int)
    pairs = deep.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    decoded = decode_image(_tiff(packed.astype(np.uint8).tobytes(), bits=12), "a")
    assert np.abs(decoded[0].numpy().reshape(-1) - deep / 4095 * 255).max() <= 0.5


def test_a_sixteen_bit_pgm_is_scaled_from_its_own_maximum():
    deep = np.linspace(0, 1000, 256).astype(">u2")
    decoded = decode_image(b"P5 16 16 1000\n" + deep.tobytes(), "a")
    assert np.abs(decoded[0].numpy().reshape(-1) - deep / 1000 * 255).max() <= 0.51


def test_a_transparent_grey_of_sixteen_bits_lies_on_white():
    deep = Image.fromarray(np.array([[0, 1000, 65535]], dtype=np.uint16))
    decoded = decode_image(encoded(deep, "PNG", transparency=1000), "a")
    assert decoded[0].tolist() == [[0, 255, 255]]
    assert decode_image(encoded(deep, "PNG"), "a")[0].tolist() == [[0, 4, 255]]


@pytest.mark.parametrize("orientation", [0, 1, 9, 77])
def test_an_unknown_orientation_turns_nothing(photo, orientation):
    data = encoded(photo, "PNG", exif=exif(orientation))
    assert torch.equal(decode_image(data, "a"), pixels(photo))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_exif_that_cannot_be_read_says_nothing(photo, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = decode_image(encoded(photo, kind, **options), "a")
    broken = encoded(photo, kind, exif=b"Exif\0\0" + b"\xff" * 40, **options)
    assert torch.equal(decode_image(broken, "a"), plain)


def test_a_turned_sixteen_bit_image_is_scaled():
    deep = np.linspace(0, 65535, 12).reshape(3, 4).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = decode_image(encoded(Image.fromarray(deep), kind, exif=exif(6)), "a")
        assert np.array_equal(decoded[0].numpy(), np.rot90(np.rint(deep / 257.0), -1))


HOSTILE = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n%%EOF\n",
    "eps-with-a-preview": b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 40) + b"\0" * 60,
    "wmf": b"\xd7\xcd\xc6\x9a" + b"\0" * 60,
    "psd": b"8BPS\0\1" + b"\0" * 40,
    "pdf": b"%PDF-1.7\n",
    "fits": b"SIMPLE  =                    T".ljust(2880),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_only_safe_decoders_see_the_bytes(kind, monkeypatch):
    """EPS would start Ghostscript, WMF the system's own renderer."""
    for name in set(Image.OPEN) - set(FORMATS):
        monkeypatch.setitem(Image.OPEN, name, (_never, None))
    with pytest.raises(UndecodableImage, match=r"^cat\.png: .*expected one of JPEG, PNG, .*found none"):
        decode_image(HOSTILE[kind], "cat.png")


def _never(*_):
    raise AssertionError("a decoder that is not on the list")


def _png(width, height, *, chunks=(), mode=2, bits=8):
    """Makes a PNG of any size whose pixels are a compressed run of zeros."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, mode, 0, 0, 0)
    body = zlib.compress(bytes(min((1 + width * 3) * min(height, 1000), 2**24)), 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(name, part) for name, part in ((b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b""))
    )


def _gif(width, height):
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0, 0, 0)
        + (b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;")
    )


def _bomb(size):
    return zlib.compress(bytes(size), 1)


@pytest.mark.parametrize(
    "data",
    [
        _png(9000, 9000),
        _png(20_000, 20_000),
        _png(2**31 - 1, 1),
        _png(1, 2**31 - 1),
        _gif(65_535, 65_535),
        b"P6 60000 60000 255\n" + bytes(30),
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 50_000, 50_000, 1, 24, *[0] * 6),
        _tiff(bytes(512), bits=16, extra=[(322, 4, 60_000), (323, 4, 60_000), (324, 4, 8), (325, 4, 512)]),
        _png(4, 4, chunks=[(b"zTXt", b"Comment\0\0" + _bomb(2**27))]),
        _png(4, 4, chunks=[(b"iTXt", b"Comment\0\1\0\0\0" + _bomb(2**27))]),
        _png(4, 4, chunks=[(b"iCCP", b"icc\0\0" + _bomb(2**27))]),
    ],
    ids=["9000", "20000", "wide", "tall", "gif", "ppm", "bmp", "tile", "zTXt", "iTXt", "iCCP"],
)
def test_a_small_file_never_becomes_a_large_image(data, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**40)  # our own limit does not depend on it
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UndecodableImage, match=r"^bomb: "):
        decode_image(data, "bomb")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_the_limit_is_stated_and_can_be_set():
    data = encoded(Image.new("L", (40, 30)), "PNG")
    with pytest.raises(
        UndecodableImage, match=r"has 30 x 40 pixels, more than max_pixels=1,199; .* raise the"
    ):
        decode_image(data, "a", max_pixels=1199)
    assert decode_image(data, "a", max_pixels=1200).shape == (3, 30, 40)
    with pytest.raises(ValueError, match="expected max_pixels from 1 to"):
        ImageFolder(root="x", max_pixels=0)


def test_decoding_a_large_image_takes_bounded_memory(tmp_path):
    """Decodes an RGBA image, which needs the most memory, in a process limited to 24 more bytes per pixel."""
    file = tmp_path / "large.png"
    Image.new("RGBA", (4096, 2048), (1, 2, 3, 100)).save(file, compress_level=1)

    def decode(results):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + 24 * 2**23
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        results.put(read_image(file, "large").shape)

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process has threads
        process = context.Process(target=decode, args=(results,))
        process.start()
    process.join(60)
    assert process.exitcode == 0
    assert results.get() == (3, 2048, 4096)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link-to-pipe", "socket"])
def test_only_regular_files_are_read(tmp_path, kind):
    path = tmp_path / "cat.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    with pytest.raises(
        UndecodableImage,
        match=r"cat: cannot be read \((expected a regular file, found|No such|Is a directory)",
    ):
        read_image(path, "cat")


def test_a_file_that_is_too_long_is_not_read(tmp_path):
    path = tmp_path / "long.png"
    with path.open("wb") as file:
        file.truncate(2**40)  # a sparse file, which takes no disk space
    with pytest.raises(UndecodableImage, match=r"the file has 1,099,511,627,776 bytes, more than"):
        read_image(path, "long")
