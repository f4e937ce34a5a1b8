"""Patches: `join` inverts `split`, and the vectors are what the class documents."""

import numpy as np
import pytest
import torch
from scipy import fft

from vq.layers import (
    FrequencyBandPatches,
    FrequencyBlockPatches,
    FrequencyPatches,
    PixelPatches,
    SpectrumPatches,
)
from vq.ops.dct import zigzag

KINDS = [PixelPatches, FrequencyPatches, FrequencyBandPatches, FrequencyBlockPatches, SpectrumPatches]


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    @pytest.mark.parametrize(("size", "grid"), [(1, (8, 12)), (2, (4, 6)), (4, (2, 3))])
    def test_puts_together_what_it_cut(self, kind, size, grid, image):
        patches = kind(size=size)
        vectors = patches.split(image)
        assert vectors.shape == (2, grid[0] * grid[1], patches.dim)
        assert patches.grid_of(image) == grid
        torch.testing.assert_close(patches.join(vectors, grid), image)

    def test_keeps_lengths(self, kind, image):
        torch.testing.assert_close(kind(size=4).split(image).square().sum(), image.square().sum())

    def test_places_are_all_different(self, kind):
        places = kind(size=2).places((4, 6), torch.device("cpu"))
        assert len({tuple(place) for place in places.tolist()}) == 24

    def test_errors(self, kind):
        with pytest.raises(
            ValueError, match=f"{kind.__name__}: expected size and channels of at least 1, got 0"
        ):
            kind(size=0)
        for size in ((8, 9), (6, 8)):
            with pytest.raises(ValueError, match=rf"{kind.__name__}: expected 3 channels, .* multiples of 4"):
                kind(size=4).split(torch.zeros(1, 3, *size))
        with pytest.raises(ValueError, match="got 1 and 8x8"):
            kind(size=4).split(torch.zeros(1, 1, 8, 8))


def test_pixels(image):
    found = PixelPatches(size=4).split(image)
    wanted = image[:, :, 4:8, 8:12].permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(found[:, 5], wanted)


def test_a_frequency_of_all_tiles(image):
    """In v1 with 2 x 2 tiles of 4 x 6 pixels the third vector is the coefficient (1, 0)."""
    found = FrequencyPatches(size=2).split(image)[:, 2]
    tiles = [image[:, :, y : y + 4, x : x + 6].numpy() for y in (0, 4) for x in (0, 6)]
    wanted = [fft.dctn(tile, axes=(2, 3), norm="ortho")[:, :, 1, 0] for tile in tiles]
    np.testing.assert_allclose(found, np.concatenate(wanted, axis=1), atol=1e-12)


def test_bands_of_the_whole_spectrum(image):
    """In v2 the first vector holds the four lowest frequencies."""
    spectrum = fft.dctn(image.numpy(), axes=(2, 3), norm="ortho")
    wanted = np.concatenate([spectrum[:, :, i, j] for i, j in ((0, 0), (0, 1), (1, 0), (2, 0))], axis=1)
    np.testing.assert_allclose(FrequencyBandPatches(size=2).split(image)[:, 0], wanted, atol=1e-12)


def test_the_spectrum_of_a_square(image):
    """In v3 the last vector is the spectrum of the last square."""
    wanted = fft.dctn(image[:, :, 4:, 8:].numpy(), axes=(2, 3), norm="ortho")
    found = FrequencyBlockPatches(size=4).split(image)[:, -1]
    np.testing.assert_allclose(found, wanted.transpose(0, 2, 3, 1).reshape(2, -1), atol=1e-12)


def test_squares_of_the_spectrum(image):
    spectrum = fft.dctn(image.numpy(), axes=(2, 3), norm="ortho")
    patches = SpectrumPatches(size=4)
    number = zigzag(2, 3).tolist().index(3)  # row 1, column 0
    wanted = spectrum[:, :, 4:8, 0:4].transpose(0, 2, 3, 1).reshape(2, -1)
    np.testing.assert_allclose(patches.split(image)[:, number], wanted, atol=1e-12)
    assert patches.places((2, 3), torch.device("cpu"))[number].tolist() == [1, 0]
