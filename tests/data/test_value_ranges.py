"""Images of 1, 3, 4 and other numbers of channels, of 8, 16 and 32 bits and of floats, written by the test."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from vq.data import DataError, ImageFolder, ImageLoader, PhotoDataset, Resize, UndecodableImage
from vq.data.decode import ImageDecoder

PHOTO = np.ascontiguousarray(
    PhotoDataset(split="val", crop_size=96).read(0)[:, :64].permute(1, 2, 0).numpy()
)  # 64 high, 96 wide
SIXTEEN = (PHOTO.astype(np.uint16) << 4) + 7  # 12 bits


def encoded(array: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, array)
    elif kind == "tif":
        tifffile.imwrite(buffer, array, **{"photometric": "rgb"} | options)
    else:
        Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes, **settings: object) -> torch.Tensor:
    return ImageDecoder(**settings).decode(data, "an image")


def channels_last(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


class TestEightBits:
    def test_colours_become_grey_as_pillow_converts_them(self) -> None:
        image = decoded(encoded(PHOTO, "PNG"), channels=1)
        assert np.array_equal(image[0].numpy(), np.array(Image.fromarray(PHOTO).convert("L")))
        assert image.shape == (1, 64, 96)

    def test_grey_stays_as_it_is(self) -> None:
        grey = PHOTO[:, :, 1]
        assert np.array_equal(decoded(encoded(grey, "PNG"), channels=1)[0].numpy(), grey)
        assert np.array_equal(decoded(encoded(grey, "PNG"), channels=4)[2].numpy(), grey)

    def test_four_channels_keep_transparency(self) -> None:
        with_alpha = np.dstack([PHOTO, PHOTO[:, :, :1]])
        assert np.array_equal(channels_last(decoded(encoded(with_alpha, "PNG"), channels=4)), with_alpha)
        opaque = decoded(encoded(PHOTO, "PNG"), channels=4)
        assert np.array_equal(channels_last(opaque)[:, :, :3], PHOTO)
        assert bool((opaque[3] == 255).all())

    def test_one_channel_composites_transparency_on_white(self) -> None:
        with_alpha = np.dstack([PHOTO, np.zeros_like(PHOTO[:, :, :1])])
        assert bool((decoded(encoded(with_alpha, "PNG"), channels=1) == 255).all())

    def test_a_fourth_channel_of_a_tiff_that_is_not_alpha_is_kept(self) -> None:
        infrared = np.dstack([PHOTO, 255 - PHOTO[:, :, :1]])
        data = encoded(infrared, "tif", photometric="rgb", extrasamples=[0])
        assert np.array_equal(channels_last(decoded(data, channels=4)), infrared)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("channels", [1, 4])
    def test_pictures_stand_upright(self, orientation: int, channels: int) -> None:
        tags = Image.Exif()
        tags[0x0112] = orientation
        data = encoded(PHOTO, "PNG", exif=tags)
        three = decoded(data)
        assert decoded(data, channels=channels).shape[1:] == three.shape[1:]
        assert torch.equal(decoded(data, channels=4)[:3], three)


class TestManyChannels:
    SIX = np.concatenate([PHOTO, 255 - PHOTO], axis=2)

    @pytest.mark.parametrize("planar", [False, True])
    def test_a_tiff(self, planar: bool) -> None:
        array = self.SIX.transpose(2, 0, 1) if planar else self.SIX
        options = {"photometric": "minisblack", "planarconfig": "separate" if planar else "contig"}
        image = decoded(encoded(array, "tif", **options), channels=6)
        assert image.dtype == torch.uint8
        assert np.array_equal(channels_last(image), self.SIX)

    def test_a_tiff_with_one_channel_per_page(self) -> None:
        data = encoded(self.SIX.transpose(2, 0, 1), "tif", photometric="minisblack")
        assert np.array_equal(channels_last(decoded(data, channels=6)), self.SIX)

    @pytest.mark.parametrize("first", [False, True])
    def test_an_array_with_the_channels_first_or_last(self, first: bool) -> None:
        array = self.SIX.transpose(2, 0, 1) if first else self.SIX
        assert np.array_equal(channels_last(decoded(encoded(array, "npy"), channels=6)), self.SIX)

    def test_if_both_ends_fit_the_channels_are_last(self) -> None:
        array = np.arange(6 * 5 * 6, dtype=np.uint8).reshape(6, 5, 6)
        assert np.array_equal(channels_last(decoded(encoded(array, "npy"), channels=6)), array)

    @pytest.mark.parametrize("channels", [2, 5, 16])
    def test_another_number_is_refused(self, channels: int) -> None:
        with pytest.raises(UndecodableImage, match=rf"expected {channels} channel\(s\), got an array of the"):
            decoded(encoded(self.SIX, "npy"), channels=channels)

    def test_a_photograph_has_no_six_channels(self) -> None:
        with pytest.raises(UndecodableImage, match=r"expected 6 channel\(s\), got an array of the shape"):
            decoded(encoded(PHOTO, "PNG"), channels=6)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_rotated_tiff_is_turned_as_pillow_turns_it(self, orientation: int) -> None:
        data = encoded(PHOTO, "tif", extratags=[(274, "H", 1, orientation, True)])
        by_numbers = decoded(data, value_range=(0, 255))
        assert torch.equal(by_numbers, decoded(data).float())


class TestRangeOfValues:
    @pytest.mark.parametrize(
        "kind", [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.float32, np.float64]
    )
    @pytest.mark.parametrize("file", ["tif", "npy"])
    def test_a_declared_range_becomes_0_to_255(self, kind: type, file: str) -> None:
        array = PHOTO.astype(kind)
        image = decoded(encoded(array, file), value_range=(10, 200))
        expected = ((PHOTO.astype(np.float64) - 10) * 255 / 190).clip(0, 255)
        assert image.dtype == torch.float32
        assert np.abs(channels_last(image) - expected).max() <= 255 * 4 * 2**-24  # four roundings in float32

    def test_sixteen_bits_keep_what_eight_would_round(self) -> None:
        image = decoded(encoded(SIXTEEN[:, :, 0], "PNG"), channels=1, value_range=(0, 4095))
        back = (image[0].double() * 4095 / 255).round().numpy()
        assert np.array_equal(back, SIXTEEN[:, :, 0])

    def test_signed_values_below_the_range_are_clamped(self) -> None:
        array = np.array([[-2000, -1000], [0, 5000]], dtype=np.int16)
        image = decoded(
            encoded(array, "tif", photometric="minisblack"), channels=1, value_range=(-1000, 1000)
        )
        assert image.flatten().tolist() == [0, 0, 127.5, 255]

    def test_an_array_is_not_changed(self) -> None:
        array = PHOTO.astype(np.float32)
        before = array.copy()
        ImageDecoder(value_range=(0, 100)).from_array(array, "an array")
        assert np.array_equal(array, before)

    def test_big_endian_arrays(self) -> None:
        array = SIXTEEN[:, :, 0].astype(">u2")
        image = decoded(encoded(array, "npy"), channels=1, value_range=(0, 4095))
        assert torch.equal(
            image, decoded(encoded(SIXTEEN[:, :, 0], "npy"), channels=1, value_range=(0, 4095))
        )

    def test_a_grey_image_is_repeated_for_three_channels(self) -> None:
        image = decoded(encoded(SIXTEEN[:, :, 0], "npy"), value_range=(0, 4095))
        assert image.shape == (3, 64, 96)
        assert torch.equal(image[0], image[2])

    @pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
    def test_without_one_such_values_are_refused(self, kind: type) -> None:
        with pytest.raises(
            UndecodableImage, match=r"no known range of values; declare the set's value_range="
        ):
            decoded(encoded(PHOTO.astype(kind), "npy"))
        with pytest.raises(
            UndecodableImage, match=r"no known range of values; declare the set's value_range="
        ):
            decoded(
                encoded(np.stack([PHOTO[:, :, 0]] * 6).astype(kind), "tif", photometric="minisblack"),
                channels=6,
            )

    @pytest.mark.parametrize("kind", [np.int32, np.float32, np.int16])
    def test_a_grey_tiff_of_32_bits_is_refused_and_not_black(self, kind: type) -> None:
        with pytest.raises(UndecodableImage, match=r"declare the set's value_range="):
            decoded(encoded(SIXTEEN[:, :, 0].astype(kind), "tif", photometric="minisblack"), channels=1)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_not_finite_is_refused(self, value: float) -> None:
        array = PHOTO.astype(np.float32)
        array[3, 4, 0] = value
        with pytest.raises(UndecodableImage, match="NaN or infinite"):
            decoded(encoded(array, "npy"), value_range=(0, 1))

    def test_sixteen_bit_colour_pngs_are_not_read_as_eight_bits(self) -> None:
        import cv2  # a dependency of mmengine; Pillow cannot write such a file

        data = cv2.imencode(".png", SIXTEEN)[1].tobytes()
        with pytest.raises(UndecodableImage, match="exact values of a 16-bit colour PNG cannot be read"):
            decoded(data, value_range=(0, 4095))

    def test_an_array_of_objects_is_not_unpickled(self, tmp_path: Path) -> None:
        class Payload:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

        data = encoded(np.array([Payload()], dtype=object), "npy")
        with pytest.raises(UndecodableImage, match="allow_pickle"):
            decoded(data)
        assert not (tmp_path / "executed").exists()


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"channels": 0}, "expected channels from 1 to 16, got 0"),
            ({"channels": 17}, "expected channels from 1 to 16, got 17"),
            ({"value_range": (5, 5)}, r"expected a value_range \(lowest, highest\) such as \(0, 4095\)"),
            ({"value_range": (5,)}, r"expected a value_range \(lowest, highest\)"),
        ],
    )
    def test_what_is_out_of_range_is_refused(self, settings: dict[str, object], message: str) -> None:
        with pytest.raises(DataError, match=f"^ImageFolder: {message}"):
            ImageFolder(root="x", **settings)

    @pytest.mark.parametrize("file", ["npy", "tif", "PNG"])
    def test_the_size_is_checked(self, file: str) -> None:
        with pytest.raises(UndecodableImage, match="has 64 x 96 pixels, more than max_pixels=6,143"):
            decoded(encoded(PHOTO, file), value_range=(0, 255), max_pixels=64 * 96 - 1)

    @pytest.mark.parametrize("kind", ["npy", "tif", "PNG"])
    @pytest.mark.parametrize("settings", [{}, {"value_range": (0, 255)}])
    def test_the_size_of_a_file(self, kind: str, settings: dict[str, object], tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(encoded(PHOTO, kind))
        assert ImageDecoder(**settings).size(tmp_path / "a") == (64, 96)


def test_a_huge_image_is_refused_before_it_is_decoded() -> None:
    data = bytearray(encoded(np.zeros((1, 1), dtype=np.uint8), "PNG"))
    data[16:24] = (30_000).to_bytes(4, "big") * 2  # the header says 30,000 x 30,000 pixels
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    for settings in ({}, {"channels": 1}, {"channels": 4}, {"value_range": (0, 255)}):
        with pytest.raises(UndecodableImage, match=r"DecompressionBomb|30000 x 30000 pixels, more than"):
            decoded(bytes(data), **settings)


def test_a_loader_of_six_channels_of_sixteen_bits(tmp_path: Path) -> None:
    six = np.concatenate([SIXTEEN, 4095 - SIXTEEN], axis=2)
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", six)
    folder = ImageFolder(root=tmp_path, extensions=(".npy",), channels=6, value_range=(0, 4095))
    loader = ImageLoader(dataset=folder, transforms=[Resize(size=32)], batch_size=3)
    assert folder.channels == 6
    batch = next(loader.train_batches(seed=0))["image"]
    assert batch.shape == (3, 6, 32, 48)
    assert batch.dtype == torch.float32
    assert float(batch.min()) >= 0
    assert float(batch.max()) <= 255
    # Bicubic resizing is linear, so that the inverted channels stay inverted but for clamping and rounding.
    interior = (batch > 1).all(dim=1) & (batch < 254).all(dim=1)
    inverted = (batch[:, :3] + batch[:, 3:] - 255).abs().amax(dim=1)
    assert float(inverted[interior].max()) < 0.01
