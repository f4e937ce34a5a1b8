"""Metrics on features of a network: scores are those of the whole set, for any division into batches and ranks."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import environment
from feature_networks import TinyNetwork

from vq.metrics import (
    KID,
    FeatureCosine,
    FIDMetric,
    InceptionScore,
    Metric,
    PrecisionRecall,
    ReferenceStatistics,
    SpatialFIDMetric,
    StatisticsCollector,
    share_features,
    update_metrics,
)
from vq.metrics.reservoir import FeatureReservoir, image_keys
from vq.metrics.samples import cosine_distance
from vq.ops.frechet import frechet_distance_of_features
from vq.ops.images import to_signed_unit, to_uint8
from vq.ops.two_samples import inception_score, kernel_distance, precision_and_recall
from vq.registry import METRICS

COUNT = 25  # not a multiple of 2 or 3
KINDS = (FIDMetric, SpatialFIDMetric, InceptionScore, KID, PrecisionRecall, FeatureCosine)


def make_metrics(network: TinyNetwork | None = None) -> list[Metric]:
    return [kind(network=network or TinyNetwork()) for kind in KINDS]


def make_batch() -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(3)
    image = to_signed_unit(torch.randint(256, (COUNT, 3, 16, 16), generator=draws, dtype=torch.uint8))
    noise = torch.randn(image.shape, generator=draws) * torch.rand(COUNT, 1, 1, 1, generator=draws)
    return {"image": image, "reconstruction": image * 0.7 + noise, "indices": torch.zeros(COUNT, 1).long()}


def run(metrics: list[Metric], cuts: tuple[int, ...] = (0, COUNT)) -> dict[str, float]:
    batch = make_batch()
    for start, stop in itertools.pairwise(cuts):
        part = {name: value[start:stop] for name, value in batch.items()}
        update_metrics(metrics, **part)
    for metric in metrics:
        metric.sync()
    return {name: value for metric in metrics for name, value in metric.compute().items()}


def features(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    batch, network = make_batch(), TinyNetwork()
    return network(to_uint8(batch["reconstruction"]))[kind], network(to_uint8(batch["image"]))[kind]


@pytest.fixture(scope="module")
def whole() -> dict[str, float]:
    return run(make_metrics())


def test_each_is_its_pure_function_of_the_whole_set(whole):
    found, wanted = features("pool")
    assert whole["frechet[tiny]"] == pytest.approx(
        frechet_distance_of_features(found, wanted).item(), abs=1e-9
    )
    spatial = frechet_distance_of_features(*features("spatial")).item()
    assert whole["spatial_frechet[tiny]"] == pytest.approx(spatial, abs=1e-9)
    assert whole["kernel_distance[tiny]"] == pytest.approx(kernel_distance(found, wanted).item(), rel=1e-9)
    assert whole["kernel_distance_std[tiny]"] == 0  # the whole set, once
    precision, recall = precision_and_recall(found, wanted)
    assert (whole["precision[tiny]"], whole["recall[tiny]"]) == (precision.item(), recall.item())
    assert whole["feature_cosine[tiny]"] == pytest.approx(cosine_distance(found, wanted).mean().item())


def test_one_split_is_the_inception_score_of_the_set():
    wanted = inception_score(features("logits")[0]).item()
    found = run([InceptionScore(network=TinyNetwork(), splits=1)])
    assert found == {"class_score[tiny]": pytest.approx(wanted, rel=1e-12), "class_score_std[tiny]": 0}


def test_splits_are_scored_alone(whole):
    split = (image_keys(to_uint8(make_batch()["image"])) >> 32) % 10
    logits = features("logits")[0]
    scores = torch.stack([inception_score(logits[split == i]) for i in split.unique()])
    assert len(scores) > 5
    assert whole["class_score[tiny]"] == pytest.approx(scores.mean().item(), rel=1e-12)
    assert whole["class_score_std[tiny]"] == pytest.approx(scores.std(correction=0).item(), rel=1e-9)


@pytest.mark.parametrize("cuts", [(0, 3, 25), (0, 10, 10, 11, 25)])
def test_batches_add_up_to_the_whole(whole, cuts):
    assert run(make_metrics(), cuts) == pytest.approx(whole, abs=1e-9)


def test_reset_forgets(whole):
    metrics = make_metrics()
    run(metrics)
    for metric in metrics:
        metric.reset()
    assert run(metrics) == pytest.approx(whole, abs=1e-9)


def test_works_in_inference_mode_and_autocast(whole):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert run(make_metrics(), (0, 9, 25)) == pytest.approx(whole, abs=1e-9)


def test_nothing_is_saved_or_trained():
    for metric in make_metrics():
        assert len(metric.state_dict()) == 0
        assert list(metric.parameters()) == []


def test_are_registered_with_a_direction():
    for kind in KINDS:
        assert METRICS.get(kind.__name__) is kind
        assert kind.higher_is_better in (True, False)


def test_the_scores_that_rank_models_are_among_those_computed():
    for metric in make_metrics():
        computed = run([metric])
        assert metric.ranked_scores()
        assert set(metric.ranked_scores()) <= set(computed)


class TestSharing:
    def test_equal_networks_become_one_with_one_forward_for_each_tensor(self, whole):
        metrics = make_metrics()
        share_features(metrics)
        networks = {id(metric.features.network): metric.features.network for metric in metrics}
        assert len(networks) == 1
        assert run(metrics, (0, 10, 25)) == pytest.approx(whole, abs=1e-9)
        assert next(iter(networks.values())).calls == 4  # two batches, images and reconstructions

    def test_other_protocols_stay_apart(self):
        metrics = [FIDMetric(network=TinyNetwork(protocol=name)) for name in ("a", "b")]
        share_features(metrics)
        assert metrics[0].features is not metrics[1].features

    def test_a_changed_tensor_is_computed_anew(self):
        metric = FIDMetric(network=TinyNetwork())
        image = torch.zeros(2, 3, 16, 16)
        before = metric.features(image)["pool"].clone()
        image += 0.5
        assert not torch.equal(metric.features(image)["pool"], before)


class TestNames:
    def test_only_the_published_weights_give_fid(self):
        found = run(make_metrics(TinyNetwork(name="inception", is_official=True)))
        assert set(found) == {
            "fid", "sfid", "inception_score", "inception_score_std", "kid", "kid_std", "precision", "recall",
            "feature_cosine[inception]",
        }  # fmt: skip

    def test_stamp(self):
        metric = FIDMetric(network=TinyNetwork())
        run([metric])
        assert metric.stamp() == {
            "protocol": "test", "extractor": "tiny", "extractor_sha256": "0" * 64,
            "resize": "mean of 4 x 4 tiles", "num_images": COUNT, "reference": "the images of the same pass",
            "reference_images": COUNT,
        }  # fmt: skip
        for metric in make_metrics():
            run([metric])
            assert metric.stamp()["num_images"] == COUNT


def test_a_broken_reconstruction_shows():
    batch = make_batch()
    batch["reconstruction"][3, 0, 2, 2] = torch.nan
    for metric in make_metrics():
        update_metrics([metric], **batch)
        assert all(math.isnan(value) for value in metric.compute().values()), type(metric)


class TestReference:
    def save(self, tmp_path, network: TinyNetwork, name: str = "my_val") -> str:
        collector = StatisticsCollector(network=network)
        for image in to_uint8(make_batch()["image"]).split(7):
            collector.update(image)
        collector.sync()
        collector.result(dataset="mine", dataset_sha256="abc").save(tmp_path / "fid" / f"{name}.npz")
        return name

    def test_a_file_of_the_images_gives_the_score_of_the_images(self, tmp_path, monkeypatch, whole):
        monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
        name = self.save(tmp_path, TinyNetwork())
        metrics = [kind(network=TinyNetwork(), reference=name) for kind in (FIDMetric, SpatialFIDMetric)]
        assert not any(metric.needs_real for metric in metrics)
        found = run(metrics)
        assert found == pytest.approx({key: whole[key] for key in found}, abs=1e-9)
        assert metrics[0].stamp()["reference"] == "mine"
        assert metrics[0].stamp()["reference_images"] == COUNT

    @pytest.mark.parametrize(
        ("name", "command"),
        [
            ("imagenet_val", "vq fid imagenet`"),
            ("imagenet_train", "vq fid imagenet --train`"),
        ],
    )
    def test_a_missing_file_is_an_error_that_names_the_command(self, tmp_path, monkeypatch, name, command):
        monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
        with pytest.raises(
            FileNotFoundError, match=f"expected a file at .*{name}.npz, got none; .*{command}"
        ):
            FIDMetric(network=TinyNetwork(), reference=name)

    def test_another_protocol_is_refused_with_both_stamps(self, tmp_path, monkeypatch):
        monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
        name = self.save(tmp_path, TinyNetwork(protocol="theirs"))
        with pytest.raises(ValueError, match=r"expected \(protocol ours, .* got \(protocol theirs, "):
            FIDMetric(network=TinyNetwork(protocol="ours"), reference=name)

    def test_a_file_without_spatial_features_is_an_error(self, tmp_path):
        path = tmp_path / "old.npz"
        found = ReferenceStatistics.load(self._saved(tmp_path))
        ReferenceStatistics(mean=found.mean, covariance=found.covariance, stamp=found.stamp).save(path)
        FIDMetric(network=TinyNetwork(), reference=str(path))
        with pytest.raises(ValueError, match="expected spatial features"):
            SpatialFIDMetric(network=TinyNetwork(), reference=str(path))

    def _saved(self, tmp_path):
        return tmp_path / "fid" / f"{self.save(tmp_path, TinyNetwork())}.npz"

    def test_spatial_features_of_the_network(self):
        network = TinyNetwork()
        network.sizes = {"pool": 6}
        with pytest.raises(ValueError, match="SpatialFIDMetric: expected a network with 'spatial' features"):
            SpatialFIDMetric(network=network)


class TestFewImages:
    def update(self, metric: Metric, count: int) -> Metric:
        update_metrics([metric], **{name: value[:count] for name, value in make_batch().items()})
        return metric

    @pytest.mark.parametrize("kind", [FIDMetric, KID])
    def test_one_image(self, kind):
        metric = self.update(kind(network=TinyNetwork()), 1)
        with pytest.raises(ValueError, match=f"{kind.__name__}: expected at least two images.*, got 1"):
            metric.compute()

    def test_fewer_images_than_dimensions_warn_and_are_right(self):
        metric = self.update(FIDMetric(network=TinyNetwork()), 4)
        with pytest.warns(UserWarning, match="FIDMetric: 4 images span less than the 6 dimensions"):
            found = metric.compute()["frechet[tiny]"]
        rows = [x[:4] for x in features("pool")]
        assert found == pytest.approx(frechet_distance_of_features(*rows).item(), abs=1e-9)

    def test_neighbours(self):
        metric = self.update(PrecisionRecall(network=TinyNetwork()), 3)
        with pytest.raises(ValueError, match="PrecisionRecall: expected more than 3 images"):
            metric.compute()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda n: InceptionScore(network=n, splits=0), "InceptionScore: expected at least 1 split"),
            (lambda n: KID(network=n, subset_size=1), "KID: expected at least 1 subset of at least 2"),
            (lambda n: PrecisionRecall(network=n, neighbours=0), "PrecisionRecall: expected at least 1"),
            (lambda n: KID(network=n, capacity=1), "FeatureReservoir: expected a capacity of at least 2"),
        ],
    )
    def test_counts(self, make, message):
        with pytest.raises(ValueError, match=message):
            make(TinyNetwork())


class TestReservoir:
    def test_keeps_the_same_images_for_any_division_into_batches(self):
        keys, rows = torch.randperm(50), torch.arange(50.0)[:, None]
        kept = []
        for cuts in ((0, 50), (0, 1, 20, 49, 50)):
            reservoir = FeatureReservoir(capacity=8)
            for start, stop in itertools.pairwise(cuts):
                reservoir.add(keys[start:stop], rows[start:stop])
            kept.append(reservoir.result())
        assert torch.equal(kept[0], kept[1])
        assert keys[kept[0][:, 0].long()].tolist() == list(range(8))

    def test_memory_is_bounded(self):
        reservoir = FeatureReservoir(capacity=10)
        for _ in range(100):
            reservoir.add(torch.randint(1000, (7,)), torch.zeros(7, 2))
            assert sum(len(keys) for keys, _ in reservoir._parts) <= 20 + 7

    def test_the_sampled_score_does_not_depend_on_the_batches(self):
        def score(cuts: tuple[int, ...]) -> dict[str, float]:
            return run([KID(network=TinyNetwork(), capacity=12, subset_size=5, num_subsets=4)], cuts)

        assert score((0, COUNT)) == pytest.approx(score((0, 4, 5, COUNT)), abs=1e-12)
        assert score((0, COUNT))["kernel_distance_std[tiny]"] > 0


def test_ranks_with_uneven_shards_equal_one_process():
    script = Path(__file__).with_name("feature_ranks.py")
    done = subprocess.run(
        [sys.executable, script],
        env=environment(PYTHONPATH=f"{script.parents[2]}:{script.parents[1]}"),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
