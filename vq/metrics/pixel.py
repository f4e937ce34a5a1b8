"""Scores between pixels: L1, MSE, PSNR and SSIM, all on images as a viewer shows them, in bytes."""

import torch
from jaxtyping import Float
from torch import Tensor

from vq.metrics.base import Images, Indices, ReconstructionMetric
from vq.ops.images import to_uint8
from vq.registry import METRICS

MAX_PSNR = 100.0
"""What two equal images score, in dB, where the formula has no value."""

_WINDOW, _SIGMA = 11, 1.5


def l1(reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Images in [-1, 1] to the mean absolute difference of their bytes / 255, one float64 each.

    Example:
        >>> l1(torch.full((1, 3, 8, 8), -1.0), torch.ones(1, 3, 8, 8)).item()
        1.0
    """
    return _mean(_difference(reconstruction, image).abs() / 255, reconstruction)


def mse(reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Images in [-1, 1] to the mean squared difference of their bytes / 255, one float64 each.

    Example:
        >>> mse(torch.full((1, 3, 8, 8), -1.0), torch.ones(1, 3, 8, 8)).item()
        1.0
    """
    return _mean((_difference(reconstruction, image) / 255).square(), reconstruction)


def psnr(reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Images in [-1, 1] to the peak signal-to-noise ratio of their bytes, in dB, one float64 each.

    10 log10(255^2 / mean squared difference), at most 100 dB, which equal images score.

    Example:
        >>> psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)).item()
        100.0
    """
    return (-10 * torch.log10(mse(reconstruction, image))).clamp_max(MAX_PSNR)


def ssim(reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Images in [-1, 1] to the structural similarity of their bytes, at most 1, one float64 each.

    Means, variances and covariance of each colour channel under a Gaussian window (11x11, sigma 1.5),
    wherever the whole window lies in the image; the score is averaged over positions and channels.

    Source: Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861, eq. 13, K1 = 0.01, K2 = 0.03, L = 255.
    Differs from the source: colour channels are scored one by one and averaged, and nothing is downsampled
        first; as `skimage.metrics.structural_similarity(x, y, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=255, channel_axis=...)` computes it.

    Raises:
        ValueError: If an image is smaller than the window.

    Example:
        >>> round(ssim(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)).item(), 6)
        1.0
    """
    if min(image.shape[-2:]) < _WINDOW:
        raise ValueError(
            f"SSIM: expected images of at least {_WINDOW}x{_WINDOW}, got {image.shape[-2]}x{image.shape[-1]}; "
            "evaluate at a larger size, or leave this metric out"
        )
    # float64 throughout: the variances are small differences of large squares.
    x, y = to_uint8(reconstruction).double(), to_uint8(image).double()
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(torch.stack([x, y, x * x, y * y, x * y]))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    covariance = mean_xy - mean_x * mean_y
    variances = (mean_xx - mean_x.square()) + (mean_yy - mean_y.square())
    return _mean(luminance * (2 * covariance + c2) / (variances + c2), reconstruction)


def _difference(
    reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 3 h w"]:
    return to_uint8(reconstruction).double() - to_uint8(image).double()


def _mean(values: Float[Tensor, "b 3 mh mw"], reconstruction: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    # A byte cannot be NaN, so a broken reconstruction would pass as a black one without this.
    is_finite = torch.isfinite(reconstruction).flatten(1).all(dim=1)
    return torch.where(is_finite, values.mean(dim=(1, 2, 3)), torch.nan)


def _blur(maps: Float[Tensor, "n b c h w"]) -> Float[Tensor, "n b c bh bw"]:
    height, width = maps.shape[-2:]
    return _window(height, like=maps) @ maps @ _window(width, like=maps).T


def _window(size: int, *, like: Tensor) -> Float[Tensor, "positions size"]:
    # Each row weighs the pixels under one position of the window. On a CPU, two float64 matrix products
    # with such rows took a third of the time of two float64 convolutions.
    offsets = torch.arange(size, dtype=like.dtype, device=like.device)
    distance = offsets - offsets[: size - _WINDOW + 1, None] - _WINDOW // 2
    weight = torch.exp(-0.5 * (distance / _SIGMA).square())
    weight = torch.where(distance.abs() <= _WINDOW // 2, weight, 0)
    return weight / weight.sum(dim=1, keepdim=True)


@METRICS.register_module()
class L1Metric(ReconstructionMetric):
    """Averages over images the absolute difference of pixels in [0, 1], rounded to bytes (key `l1_unit`).

    Half the number that `L1Loss` gives on [-1, 1] for the same pictures.
    """

    higher_is_better = False
    l1_unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("l1_unit")

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the images' differences."""
        self.l1_unit += l1(reconstruction, image).sum()


@METRICS.register_module()
class MSEMetric(ReconstructionMetric):
    """Averages over images the squared difference of pixels in [0, 1], rounded to bytes (key `mse_unit`).

    A quarter of the number that `MSELoss` gives on [-1, 1] for the same pictures.
    """

    higher_is_better = False
    mse_unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("mse_unit")

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the images' squared differences."""
        self.mse_unit += mse(reconstruction, image).sum()


@METRICS.register_module()
class PSNR(ReconstructionMetric):
    """Averages the images' peak signal-to-noise ratios, rounded to bytes (key `psnr`, in dB).

    The mean of the images' ratios, as LlamaGen and most papers report it; the ratio of the mean error is
    another, smaller number. An image that comes back exactly counts as 100 dB.
    """

    higher_is_better = True
    psnr: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("psnr")

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the images' ratios."""
        self.psnr += psnr(reconstruction, image).sum()


@METRICS.register_module()
class SSIM(ReconstructionMetric):
    """Averages the images' structural similarities, rounded to bytes (key `ssim`); see `ssim`."""

    higher_is_better = True
    ssim: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("ssim")

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the images' similarities."""
        self.ssim += ssim(reconstruction, image).sum()
