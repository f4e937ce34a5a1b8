"""FID, KID and the Inception Score against pytorch-fid, torch-fidelity and torchmetrics.

All see the same images and the same file of random Inception weights, so resizing, network, statistics and
distance are compared, and no number means anything.
"""

import warnings

import numpy as np
import pytest
import torch
from feature_networks import write_inception

from vq.metrics import FIDMetric, InceptionScore, Metric, share_features, update_metrics
from vq.networks import InceptionNetwork
from vq.ops.images import to_signed_unit
from vq.ops.two_samples import kernel_distances

fid_score = pytest.importorskip("pytorch_fid.fid_score")
fidelity_fid = pytest.importorskip("torch_fidelity.metric_fid")
torchmetrics_fid = pytest.importorskip("torchmetrics.image.fid")

COUNT = 6


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures, and the same ones spoilt, of a size that every protocol resizes."""
    draws = torch.Generator().manual_seed(0)
    coarse = torch.rand(COUNT, 3, 5, 5, generator=draws)
    real = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 1)
    spoilt = (real * 0.5 + 0.5 * torch.rand(real.shape, generator=draws)).clamp(0, 1)
    return (real * 255).byte(), (spoilt * 255).byte()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQ_PRETRAINED", str(folder))
        yield write_inception(folder)


@pytest.fixture(scope="module")
def extractor(weights):
    package = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    return package.FeatureExtractorInceptionV3(
        "test", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )


def metrics(protocol: str) -> list[Metric]:
    network = InceptionNetwork(protocol=protocol)
    return [FIDMetric(network=network), InceptionScore(network=network, splits=1)]


def scores(found: list[Metric], pictures) -> dict[str, float]:
    real, spoilt = (to_signed_unit(x) for x in pictures)
    share_features(found)
    indices = torch.zeros(COUNT, 1, dtype=torch.int64)
    update_metrics(found, image=real, reconstruction=spoilt, indices=indices)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # six images span no 2048 dimensions
        result = {name: value for metric in found for name, value in metric.compute().items()}
    return {name.split("[")[0]: value for name, value in result.items()}


def turned(real: torch.Tensor, spoilt: torch.Tensor) -> list[torch.Tensor]:
    """Features in an orthonormal basis of their own span: no distance changes, and a root takes no minute."""
    basis = torch.linalg.qr(torch.cat([real, spoilt]).double().T)[0]
    return [real.double() @ basis, spoilt.double() @ basis]


def kept(found: list[Metric]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The features of the pass itself: of the real and the spoilt images, and the latter's logits."""
    (_, _, real), (_, _, spoilt) = sorted(found[0].features._cache, key=lambda seen: seen[0].std().item())[
        ::-1
    ]
    return real["pool"], spoilt["pool"], spoilt["logits"]


@pytest.mark.slow
def test_pytorch_fid(pictures, weights, monkeypatch):
    from pytorch_fid import inception

    monkeypatch.setattr(
        inception, "load_state_dict_from_url", lambda *_, **__: torch.load(weights, weights_only=True)
    )
    found = metrics("pytorch-fid")
    fid = scores(found, pictures)["frechet"]
    network = inception.InceptionV3().eval()
    with torch.no_grad():
        theirs = [network(x.float() / 255)[0].flatten(1) for x in pictures]
    ours = kept(found)
    for a, b in zip(ours, theirs, strict=False):
        assert torch.allclose(a, b, atol=1e-4)
    moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (y.numpy() for y in turned(*theirs))]
    with warnings.catch_warnings():
        # SciPy warns of the argument that 1.18 removed, and that the product is singular.
        warnings.simplefilter("ignore")
        try:
            wanted = fid_score.calculate_frechet_distance(*moments[1], *moments[0])
        except TypeError:
            pytest.skip("this SciPy no longer knows the argument that pytorch-fid gives it")
    assert fid == pytest.approx(wanted, rel=1e-3)


@pytest.mark.slow
def test_torch_fidelity_and_torchmetrics(pictures, weights, extractor):
    found = metrics("torch-fidelity")
    ours = scores(found, pictures)
    theirs = [extractor(x) for x in pictures]
    real, spoilt, logits = kept(found)
    assert torch.allclose(real, theirs[0][0], atol=1e-4)
    assert torch.allclose(spoilt, theirs[1][0], atol=1e-4)
    assert torch.allclose(logits, theirs[1][1], atol=1e-4)

    few = turned(theirs[0][0], theirs[1][0])
    statistics = [fidelity_fid.fid_features_to_statistics(x) for x in few]
    wanted = fidelity_fid.fid_statistics_to_metric(statistics[1], statistics[0], False)
    assert ours["frechet"] == pytest.approx(wanted["frechet_inception_distance"], rel=1e-3)

    from torch_fidelity import metric_isc, metric_kid

    score = metric_isc.isc_features_to_metric(theirs[1][1], splits=1)["inception_score_mean"]
    assert ours["class_score"] == pytest.approx(score, rel=1e-4)
    arguments = {
        "kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1,
        "kid_subsets": 3, "kid_subset_size": 4, "rng_seed": 2020, "verbose": False,
    }  # fmt: skip
    kid = metric_kid.kid_features_to_metric(theirs[1][0], theirs[0][0], **arguments)
    subsets = kernel_distances(spoilt, real, num_subsets=3, subset_size=4, seed=2020)
    assert subsets.mean().item() == pytest.approx(kid["kernel_inception_distance_mean"], rel=1e-3)

    class Known(torch.nn.Module):
        """Hands torchmetrics the features, so that its sums and its distance are what is compared."""

        num_features = 2 * COUNT

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.shape[-1] != 64:  # it tries its network on an image of its own first
                return torch.zeros(len(image), 2 * COUNT)
            return few[0] if torch.equal(image, pictures[0]) else few[1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = torchmetrics_fid.FrechetInceptionDistance(feature=Known())
        metric.update(pictures[0], real=True)
        metric.update(pictures[1], real=False)
        assert ours["frechet"] == pytest.approx(metric.compute().item(), rel=1e-3)


def test_clean_fids_resizing_reaches_the_network(pictures, weights):
    """Its network is a file of TorchScript that no package carries, so only what goes into it is compared."""
    resize = pytest.importorskip("cleanfid.resize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resizer = resize.make_resizer("PIL", False, "bicubic", (299, 299))
        wanted = np.stack([resizer(x.permute(1, 2, 0).numpy()) for x in pictures[0][:2]])
    network = InceptionNetwork(protocol="clean-fid")
    found = network._resized(pictures[0][:2]) * 128 + 128
    assert torch.allclose(found, torch.from_numpy(wanted).permute(0, 3, 1, 2), atol=1e-4)
