"""The Haar transform of images: the bands of a single image by hand, and the inverse."""

import pytest
import torch

from vq.layers.haar import haar2, inverse_haar2


def test_bands_are_the_mean_and_the_half_differences() -> None:
    image = torch.tensor([[1.0, 3.0], [6.0, 2.0]], dtype=torch.float64)
    bands = haar2(image[None, None], 1).flatten()
    signs = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    assert torch.equal(bands, signs @ image.flatten() / 4)


def test_channels_of_a_band_are_together() -> None:
    bands = haar2(
        torch.randn(1, 1, 4, 4).expand(1, 3, 4, 4) * torch.tensor([1.0, 2.0, 4.0])[:, None, None], 2
    )
    grouped = bands.view(4, 4, 3)
    torch.testing.assert_close(grouped[..., 1], 2 * grouped[..., 0])
    torch.testing.assert_close(grouped[..., 2], 4 * grouped[..., 0])


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_inverse(depth: int) -> None:
    image = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    bands = haar2(image, depth)
    assert bands.shape == (2, 3 * 4**depth, 16 >> depth, 24 >> depth)
    torch.testing.assert_close(inverse_haar2(bands, depth), image)
