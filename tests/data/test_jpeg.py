"""Ordinary JPEGs are decoded by simplejpeg: to the pixels of Pillow, and only if Pillow accepts the file too."""

import io
import math
import random
import resource

import pytest
import simplejpeg
import torch
from PIL import Image

from vq.data import ImageFolder, ImageLoader, PhotoDataset, RandomCrop, Resize, colours, jpeg
from vq.data.decode import MAX_PIXELS, ImageDecoder
from vq.data.transforms import Augmentation


@pytest.fixture(scope="module")
def photo():
    """A real crop, 80 wide and 48 high."""
    crop = PhotoDataset(split="val", crop_size=80).read(0)[:, :48, :]
    return Image.fromarray(crop.permute(1, 2, 0).numpy())


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 85} | options)
    return buffer.getvalue()


def fast(data, channels=3, max_pixels=MAX_PIXELS, min_side=None):
    return jpeg.decode(data, channels=channels, max_pixels=max_pixels, min_side=min_side)


def by_pillow(data, channels=3):
    """Decodes as `ImageDecoder` does without simplejpeg."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.load()
        return torch.from_numpy(colours.eight_bits(image, channels)).permute(2, 0, 1)


def tags(orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A camera"
    return exif


ORDINARY = {
    "baseline": {},
    "progressive": {"progressive": True},
    "without subsampling": {"subsampling": 0},
    "half the columns": {"subsampling": 1},
    "restarts": {"restart_marker_blocks": 2, "optimize": True},
    "EXIF": {"exif": tags(1)},
    "profile and comment": {"icc_profile": b"x" * 200, "comment": b"a comment", "dpi": (72, 72)},
    "RGB inside": {"keep_rgb": True, "subsampling": 0},
}


def differences(one, other):
    return (one.int() - other.int()).abs()


ANY = torch.Generator()


class TestOrdinary:
    @pytest.mark.parametrize("kind", ORDINARY)
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_pixels_are_pillows(self, photo, mode, kind):
        """The same library decodes on both sides, but perhaps another version of it, hence one level."""
        data = encoded(photo.convert(mode), **ORDINARY[kind])
        decoded = fast(data)
        assert decoded.shape == (3, 48, 80)
        assert decoded.dtype == torch.uint8
        assert (differences(decoded, by_pillow(data)) <= 1).float().mean() >= 0.999
        assert torch.equal(ImageDecoder().decode(data, "a"), decoded)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_pictures_stand_upright(self, photo, orientation):
        for mode, channels in (("RGB", 3), ("L", 3), ("L", 1)):
            data = encoded(photo.convert(mode), exif=tags(orientation))
            expected = by_pillow(data, channels)
            assert expected.shape[1:] == ((48, 80) if orientation < 5 else (80, 48))
            assert differences(fast(data, channels), expected).float().mean() < 0.01

    def test_grey_stays_one_channel(self, photo):
        data = encoded(photo.convert("L"))
        decoded = fast(data, channels=1)
        assert decoded.shape == (1, 48, 80)
        assert differences(decoded, by_pillow(data, 1)).float().mean() < 0.01

    def test_whole_photographs(self):
        for index, quality in ((0, 75), (40, 90), (80, 97)):
            pixels = PhotoDataset(split="all", crop_size=256).read(index)
            data = encoded(Image.fromarray(pixels.permute(1, 2, 0).numpy()), quality=quality)
            assert (differences(fast(data), by_pillow(data)) <= 1).float().mean() >= 0.999

    def test_the_pixels_may_be_written(self, photo):
        decoded = fast(encoded(photo))
        decoded[0, 0, 0] = 7
        assert decoded[0, 0, 0] == 7


def without_marker(data, old, new):
    assert data.count(old) == 1
    return data.replace(old, new)


def png(photo):
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return buffer.getvalue()


def inserted(data, marker, segment):
    return data[:2] + bytes((0xFF, marker)) + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]


def doubled_exif(data):
    start = data.index(b"Exif\0\0")
    return inserted(data, 0xE1, data[start : start + int.from_bytes(data[start - 2 : start], "big") - 2])


def several_pictures(photo):
    buffer = io.BytesIO()
    photo.save(buffer, "MPO", save_all=True, append_images=[photo])
    return buffer.getvalue()


UNUSUAL = {
    "CMYK": lambda photo: encoded(photo.convert("CMYK")),
    "PNG": png,
    "orientation in XMP": lambda photo: encoded(photo, xmp=b"<x tiff:Orientation='6'/>"),
    "two EXIF segments": lambda photo: doubled_exif(encoded(photo, exif=tags(6))),
    "broken EXIF": lambda photo: encoded(photo, exif=b"Exif\0\0" + b"\xff" * 40),
    "several pictures": several_pictures,
    "image resources": lambda photo: inserted(
        encoded(photo), 0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0"
    ),
    "fill bytes": lambda photo: b"\xff\xd8\xff" + encoded(photo)[2:],
    "no end": lambda photo: encoded(photo)[:-2],
}


class TestUnusual:
    @pytest.mark.parametrize("kind", UNUSUAL)
    def test_it_is_left_to_pillow(self, photo, kind):
        assert fast(UNUSUAL[kind](photo)) is None

    def test_colour_files_read_as_grey_are_left_to_pillow(self, photo):
        data = encoded(photo)
        assert fast(data, channels=1) is None
        assert torch.equal(ImageDecoder(channels=1).decode(data, "a"), by_pillow(data, 1))

    @pytest.mark.parametrize("channels", [2, 4, 6])
    def test_so_are_other_numbers_of_channels(self, photo, channels):
        assert fast(encoded(photo), channels=channels) is None

    @pytest.mark.parametrize(
        "frame", [0xC3, 0xC5, 0xC9, 0xCA], ids=["lossless", "hierarchical", "arithmetic", "both"]
    )
    def test_other_frames(self, photo, frame):
        data = without_marker(encoded(photo), b"\xff\xc0", bytes((0xFF, frame)))
        assert fast(data) is None

    def test_twelve_bits(self, photo):
        data = encoded(photo)
        frame = data.index(b"\xff\xc0") + 4
        assert data[frame] == 8
        assert fast(data[:frame] + bytes((12,)) + data[frame + 1 :]) is None

    def test_large_images_are_not_decoded(self, photo, monkeypatch):
        data = encoded(photo)
        assert fast(data, max_pixels=48 * 80) is not None
        assert fast(data, max_pixels=48 * 80 - 1) is None
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        assert fast(data) is None

    def test_an_announced_size_takes_no_memory(self, photo):
        data = bytearray(encoded(photo))
        frame = data.index(b"\xff\xc0") + 5
        data[frame : frame + 4] = b"\xff\xdc\xff\xdc"  # 65,500 x 65,500, 12.9 GB
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert fast(bytes(data)) is None
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


class TestDamaged:
    @pytest.mark.parametrize("kind", ["baseline", "progressive", "EXIF", "restarts"])
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_no_part_of_a_file_is_accepted(self, photo, mode, kind):
        """Pillow decides about each: it refuses nearly all, and does so as before."""
        data = encoded(photo.convert(mode), **ORDINARY[kind])
        assert all(fast(data[:length]) is None for length in range(len(data)))

    @pytest.mark.parametrize("kind", ["baseline", "progressive", "EXIF", "profile and comment"])
    def test_what_is_accepted_with_changed_bytes_is_what_pillow_decodes(self, photo, kind):
        data, chosen = encoded(photo, **ORDINARY[kind]), random.Random(7)
        header, num_accepted = data.index(b"\xff\xda"), 0
        for _ in range(300):
            changed = bytearray(data)
            for _ in range(chosen.choice((1, 1, 3))):
                changed[chosen.randrange(header if chosen.random() < 0.7 else len(data))] = chosen.randrange(
                    256
                )
            decoded = fast(bytes(changed))
            if decoded is not None:
                num_accepted += 1
                expected = by_pillow(bytes(changed))  # raises if Pillow refuses the file
                assert (differences(decoded, expected) <= 1).float().mean() >= 0.999
        assert 30 < num_accepted < 270

    def test_a_warning_leaves_the_file_to_pillow(self, photo):
        """Superfluous bytes make libjpeg-turbo warn, and Pillow reads the picture nevertheless."""
        data = encoded(photo)
        damaged = data[:-2] + b"\x55" * 9 + data[-2:]
        with pytest.raises(ValueError, match="extraneous"):
            simplejpeg.decode_jpeg(damaged)
        assert fast(damaged) is None
        assert torch.equal(ImageDecoder().decode(damaged, "a"), by_pillow(damaged))


def psnr(one, other):
    return 10 * math.log10(255**2 / float((one.float() - other.float()).square().mean()))


class TestScaled:
    @pytest.mark.parametrize(
        ("height", "width", "min_side", "expected"),
        [
            (512, 512, None, (512, 512)),
            (512, 512, 257 // 2, (256, 256)),  # exactly twice the target
            (512, 512, 129, (512, 512)),
            (512, 512, 64, (128, 128)),
            (512, 512, 32, (64, 64)),
            (512, 512, 1, (64, 64)),
            (512, 500, 32, (128, 125)),  # 500 cannot be divided by 8
            (511, 512, 32, (511, 512)),
            (128, 512, 16, (32, 128)),  # the shorter side decides
        ],
    )
    def test_a_scale_is_used_if_it_is_exact_and_leaves_twice_the_target(
        self, height, width, min_side, expected
    ):
        data = encoded(Image.new("RGB", (width, height), (10, 100, 200)))
        assert fast(data, min_side=min_side).shape == (3, *expected)

    def test_a_turned_picture(self):
        data = encoded(Image.new("RGB", (512, 256)), exif=tags(6))
        assert fast(data, min_side=32).shape == (3, 128, 64)

    @pytest.mark.parametrize("subsampling", [0, 2])
    def test_it_is_near_full_decoding_and_resizing(self, subsampling):
        """All photographs that are large enough, at the smallest margin for each scale."""
        photos = PhotoDataset(split="all")
        ratios = []
        for number in range(len(photos.class_names)):
            pixels = photos._read_photo(number)
            side = min(pixels.shape[1:]) // 16 * 16
            data = encoded(
                Image.fromarray(pixels[:, :side, :side].permute(1, 2, 0).numpy()),
                quality=90,
                subsampling=subsampling,
            )
            for denominator in (2, 4, 8):
                resize = Resize(size=side // (2 * denominator))
                scaled = fast(data, min_side=resize.min_side)
                assert scaled.shape[1] == side // denominator
                ratios.append(psnr(resize(scaled, ANY), resize(fast(data), ANY)))
        assert min(ratios) > 40

    def test_random_crops_are_the_same_part_of_the_picture(self):
        pixels = PhotoDataset(split="all", crop_size=256).read(9)
        data = encoded(Image.fromarray(pixels[:, :192].permute(1, 2, 0).numpy()))
        resize, crop = Resize(size=40), RandomCrop(size=40)
        views = [
            crop(resize(fast(data, min_side=side), ANY), torch.Generator().manual_seed(3))
            for side in (None, 40)
        ]
        assert psnr(*views) > 40

    def test_only_training_asks_for_it(self, tmp_path):
        pixels = PhotoDataset(split="all", crop_size=256).read(3).permute(1, 2, 0).numpy()
        for i in range(2):
            Image.fromarray(pixels).save(tmp_path / f"{i}.jpg")
        for transform in (Resize(size=32), Augmentation(kind="none", size=32)):
            options = {"dataset": ImageFolder(root=tmp_path), "transforms": [transform], "batch_size": 2}
            scaled = next(ImageLoader(**options).train_batches(seed=0))["image"]
            full = next(ImageLoader(**options, scaled_decoding=False).train_batches(seed=0))["image"]
            evaluated = next(ImageLoader(**options).pass_batches())["image"]
            assert not torch.equal(scaled, full)
            assert psnr(scaled, full) > 40
            assert torch.equal(evaluated, full)
            assert torch.equal(ImageLoader(**options).fixed_batch(2)["image"], full)
