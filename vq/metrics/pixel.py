"""Pixel metrics: L1, MSE, PSNR and SSIM, all computed on images rounded to bytes, as image files hold them."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vq.metrics.base import Images, Indices, ReconstructionMetric
from vq.ops.images import to_uint8
from vq.registry import METRICS

MAX_PSNR = 100.0
"""The score of two equal images in dB, for which the formula is undefined."""

Window = Literal["gaussian", "uniform"]
_SIZES: dict[Window, int] = {"gaussian": 11, "uniform": 7}
_SIGMA = 1.5


def l1(
    reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
) -> Float[Tensor, "b"]:
    """Computes the mean absolute difference of the bytes / 255 of images in [-1, 1], one float64 per image.

    Example:
        >>> l1(torch.full((1, 3, 8, 8), -1.0), torch.ones(1, 3, 8, 8)).item()
        1.0
    """
    return _mean(_difference(reconstruction, image).abs() / 255, reconstruction)


def mse(
    reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
) -> Float[Tensor, "b"]:
    """Computes the mean squared difference of the bytes / 255 of images in [-1, 1], one float64 per image.

    Example:
        >>> mse(torch.full((1, 3, 8, 8), -1.0), torch.ones(1, 3, 8, 8)).item()
        1.0
    """
    return _mean((_difference(reconstruction, image) / 255).square(), reconstruction)


def psnr(
    reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
) -> Float[Tensor, "b"]:
    """Computes the peak signal-to-noise ratio of the bytes of images in [-1, 1], in dB, one float64 per image.

    The ratio is 10 log10(255^2 / mean squared difference over all channels), but at most 100 dB, the score of equal
    images.

    Example:
        >>> psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)).item()
        100.0
    """
    return (-10 * torch.log10(mse(reconstruction, image))).clamp_max(MAX_PSNR)


def ssim(
    reconstruction: Float[Tensor, "b channels h w"],
    image: Float[Tensor, "b channels h w"],
    window: Window = "gaussian",
) -> Float[Tensor, "b"]:
    """Computes the structural similarity of the bytes of images in [-1, 1], at most 1, one float64 per image.

    Means, variances and covariances of each channel are computed under a Gaussian window (11x11, sigma 1.5), at
    all positions where the whole window is inside the image. The score is averaged over positions and channels.

    Many projects publish the score under a uniform window (7x7) with unbiased variances, the default of
    scikit-image. It is larger, on photographs by some hundredths.

    Source: Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861, eq. 13, K1 = 0.01, K2 = 0.03, L = 255.
    Differs from the source: channels are scored separately and averaged, and images are not downsampled first.
        The score equals that of `skimage.metrics.structural_similarity(x, y, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=255, channel_axis=...)`, and that of the uniform window equals
        `structural_similarity(x, y, data_range=255, channel_axis=...)`.

    Raises:
        ValueError: If an image is smaller than the window.

    Example:
        >>> round(ssim(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)).item(), 6)
        1.0
    """
    side = _SIZES[window]
    if min(image.shape[-2:]) < side:
        raise ValueError(
            f"SSIM: expected images of at least {side}x{side}, got {image.shape[-2]}x{image.shape[-1]}; "
            "evaluate at a larger size, or leave this metric out"
        )
    # All in float64, because the variances are small differences of large squares.
    x, y = to_uint8(reconstruction).double(), to_uint8(image).double()
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(torch.stack([x, y, x * x, y * y, x * y]), window)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    unbiased = side**2 / (side**2 - 1) if window == "uniform" else 1.0
    covariance = unbiased * (mean_xy - mean_x * mean_y)
    variances = unbiased * ((mean_xx - mean_x.square()) + (mean_yy - mean_y.square()))
    return _mean(luminance * (2 * covariance + c2) / (variances + c2), reconstruction)


def _difference(
    reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
) -> Float[Tensor, "b channels h w"]:
    return to_uint8(reconstruction).double() - to_uint8(image).double()


def _mean(
    values: Float[Tensor, "b channels mh mw"], reconstruction: Float[Tensor, "b channels h w"]
) -> Float[Tensor, "b"]:
    # A byte cannot be NaN: without this, a reconstruction with NaN would score as if it were black.
    is_finite = torch.isfinite(reconstruction).flatten(1).all(dim=1)
    return torch.where(is_finite, values.mean(dim=(1, 2, 3)), torch.nan)


def _blur(maps: Float[Tensor, "n b c h w"], window: Window) -> Float[Tensor, "n b c bh bw"]:
    height, width = maps.shape[-2:]
    return _window(window, height, like=maps) @ maps @ _window(window, width, like=maps).T


def _window(window: Window, size: int, *, like: Float[Tensor, "..."]) -> Float[Tensor, "positions size"]:
    # Each row holds the weights of the pixels for one position of the window. On a CPU, two float64 matrix products
    # with this matrix take a third of the time of two float64 convolutions.
    offsets = torch.arange(size, dtype=like.dtype, device=like.device)
    side = _SIZES[window]
    distance = offsets - offsets[: size - side + 1, None] - side // 2
    weight = torch.exp(-0.5 * (distance / _SIGMA).square()) if window == "gaussian" else distance * 0 + 1
    weight = torch.where(distance.abs() <= side // 2, weight, 0)
    return weight / weight.sum(dim=1, keepdim=True)


@METRICS.register_module()
class L1Metric(ReconstructionMetric):
    """Averages the absolute difference of pixels in [0, 1], rounded to bytes, over images (key `l1_unit`).

    It is half of what `L1Loss` computes on [-1, 1] for the same images.
    """

    higher_is_better = False
    l1_unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("l1_unit")

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the absolute differences of a batch."""
        self.l1_unit += l1(reconstruction, image).sum()


@METRICS.register_module()
class MSEMetric(ReconstructionMetric):
    """Averages the squared difference of pixels in [0, 1], rounded to bytes, over images (key `mse_unit`).

    It is a quarter of what `MSELoss` computes on [-1, 1] for the same images.
    """

    higher_is_better = False
    mse_unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("mse_unit")

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the squared differences of a batch."""
        self.mse_unit += mse(reconstruction, image).sum()


@METRICS.register_module()
class PSNR(ReconstructionMetric):
    """Averages the peak signal-to-noise ratio, in dB, of images rounded to bytes (key `psnr`).

    The score is the mean of the ratios of the images, as LlamaGen and most papers report it. The ratio of the mean
    squared error of all images would be smaller. An image that is reconstructed exactly counts as 100 dB.
    """

    higher_is_better = True
    psnr: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("psnr")

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the ratios of a batch."""
        self.psnr += psnr(reconstruction, image).sum()


@METRICS.register_module()
class SSIM(ReconstructionMetric):
    """Averages the structural similarity, as computed by the function `ssim`, over images (key `ssim`).

    Args:
        window: `"gaussian"`, as in the paper; or `"uniform"`, the default of scikit-image, with which many projects
            publish their scores (key `ssim_uniform`).

    Raises:
        ValueError: If there is no such window.
    """

    higher_is_better = True

    def __init__(self, window: Window = "gaussian") -> None:
        super().__init__()
        if window not in _SIZES:
            raise ValueError(f"SSIM: expected window to be 'gaussian' or 'uniform', got {window!r}")
        self.window = window
        self.key = "ssim" if window == "gaussian" else "ssim_uniform"
        self.add_sum(self.key)

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the similarities of a batch."""
        self.get_buffer(self.key).add_(ssim(reconstruction, image, self.window).sum())
