"""The pixel metrics, compared with scikit-image and NumPy on bytes."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vq.metrics import PSNR, SSIM, L1Metric, MSEMetric
from vq.metrics.pixel import l1, mse, psnr, ssim


def as_bytes(images: torch.Tensor) -> np.ndarray:
    """Converts to bytes without the code under test."""
    return np.clip(np.rint((images.numpy().astype(np.float64) + 1) * 127.5), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pair():
    """Makes 40x56 crops of a photograph, and noisy, too bright and constant versions of them."""
    photo = torch.from_numpy(astronaut().copy()).permute(2, 0, 1).float() / 127.5 - 1
    image = torch.stack([photo[:, y : y + 40, y : y + 56] for y in (0, 100, 200, 300)])
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    reconstruction = image + torch.tensor([0.01, 0.1, 0.4, 0.0]).reshape(4, 1, 1, 1) * noise
    reconstruction[3] = 1.3 * image[3].mean()
    return reconstruction, image


def each(pair, oracle):
    return torch.tensor(
        [oracle(x, y) for x, y in zip(*map(as_bytes, pair), strict=True)], dtype=torch.float64
    )


def test_psnr_equals_scikit_image(pair):
    wanted = each(pair, lambda x, y: peak_signal_noise_ratio(y, x, data_range=255))
    torch.testing.assert_close(psnr(*pair), wanted, rtol=1e-12, atol=0)


def test_ssim_equals_scikit_image(pair):
    wanted = each(
        pair,
        lambda x, y: structural_similarity(
            x,
            y,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=0,
        ),
    )
    torch.testing.assert_close(ssim(*pair), wanted, rtol=0, atol=1e-10)
    assert wanted.max() - wanted.min() > 0.5


def test_ssim_of_the_uniform_window_is_the_default_of_scikit_image(pair):
    wanted = each(pair, lambda x, y: structural_similarity(x, y, data_range=255, channel_axis=0))
    torch.testing.assert_close(ssim(*pair, "uniform"), wanted, rtol=0, atol=1e-10)
    metric = SSIM(window="uniform")
    metric.update(reconstruction=pair[0], image=pair[1], indices=torch.zeros(4, 1, dtype=torch.int64))
    assert metric.compute() == {"ssim_uniform": pytest.approx(wanted.mean().item(), abs=1e-10)}


def test_l1_and_mse_equal_numpy(pair):
    difference = [
        x.astype(np.float64) / 255 - y.astype(np.float64) / 255
        for x, y in zip(*map(as_bytes, pair), strict=True)
    ]
    torch.testing.assert_close(l1(*pair), torch.tensor([np.abs(d).mean() for d in difference]).double())
    torch.testing.assert_close(mse(*pair), torch.tensor([(d**2).mean() for d in difference]).double())


def test_images_are_rounded_and_clamped():
    """Differences that bytes cannot represent do not count: below half a level, or beyond white."""
    image = torch.full((1, 3, 16, 16), 1.0)
    for unseen in (1.5, 1 - 0.4 / 127.5):
        assert mse(unseen * image, image).item() == 0
    assert mse((1 - 0.6 / 127.5) * image, image).item() == pytest.approx((1 / 255) ** 2)


def test_equal_images(pair):
    image = pair[1]
    assert psnr(image, image).tolist() == [100] * 4
    torch.testing.assert_close(ssim(image, image), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_psnr_is_the_mean_of_the_images_ratios(pair):
    metric = PSNR()
    metric.update(reconstruction=pair[0], image=pair[1], indices=torch.zeros(4, 1, dtype=torch.int64))
    assert metric.compute()["psnr"] == pytest.approx(psnr(*pair).mean().item(), rel=1e-12)
    pooled = -10 * np.log10(mse(*pair).mean().item())
    assert metric.compute()["psnr"] > pooled + 3


def test_scale_of_the_keys(pair):
    """Black against white is 1 on [0, 1] pixels."""
    white = torch.ones(2, 3, 8, 8)
    for metric in (L1Metric(), MSEMetric()):
        metric.update(reconstruction=-white, image=white, indices=torch.zeros(2, 1, dtype=torch.int64))
        assert list(metric.compute().values()) == [1]


def test_ssim_refuses_images_smaller_than_its_window():
    small = torch.zeros(1, 3, 10, 64)
    with pytest.raises(ValueError, match="SSIM: expected images of at least 11x11, got 10x64; evaluate at"):
        ssim(small, small)
