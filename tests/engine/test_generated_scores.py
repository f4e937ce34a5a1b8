"""Scores of generated images: against real images or a reference file, never against themselves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY
from feature_networks import TinyNetwork

import vq.metrics
from vq import config
from vq.data import TokenDataset, TokenLoader
from vq.data.stores.token_manifest import write_manifest
from vq.data.stores.token_shards import ShardFiles, bytes_per_index, write_shard
from vq.engine import ProposalEvaluator, assembly
from vq.engine.evaluation.sampling import generate_images
from vq.errors import ConfigError
from vq.generators import DecoderTransformer, TransformerGenerator
from vq.metrics import (
    KID,
    PSNR,
    FeatureCosine,
    FIDMetric,
    InceptionScore,
    Metric,
    PrecisionRecall,
    SetMetric,
    SpatialFIDMetric,
    StatisticsCollector,
)
from vq.ops.frechet import frechet_distance_of_features
from vq.ops.keyed import stable_hash
from vq.ops.two_samples import inception_score, kernel_distance, precision_and_recall
from vq.registry import METRICS


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return assembly.make_tokenizer(config.load(TINY).to_dict(), seed=1).eval()


@pytest.fixture(scope="module")
def generator() -> TransformerGenerator:
    torch.manual_seed(0)
    transformer = DecoderTransformer(width=16, depth=1, num_heads=2)
    return TransformerGenerator(
        transformer=transformer, vocabulary_size=16, num_classes=4, grid=(8, 8)
    ).eval()


@pytest.fixture
def images() -> Any:
    return assembly.make_loader(config.load(TINY).to_dict(), "val_data")


def set_metrics() -> list[SetMetric]:
    kinds = (FIDMetric, SpatialFIDMetric, InceptionScore, KID, PrecisionRecall)
    return [kind(network=TinyNetwork()) for kind in kinds[:2] + kinds[3:]] + [
        InceptionScore(network=TinyNetwork(), splits=1)
    ]


def test_every_metric_of_sets_compares_generated_images_with_those_of_the_set(
    tokenizer: Any, generator: TransformerGenerator, images: Any
) -> None:
    count = images.num_samples - 3
    evaluator = ProposalEvaluator(tokenizer=tokenizer, metrics=set_metrics(), num_generated=count)
    found = evaluator.evaluate(generator, images)

    batches = list(images.pass_batches())
    real = torch.cat([batch["image"] for batch in batches])
    labels = torch.cat([batch["label"] for batch in batches])[:count]
    seeds = torch.tensor([stable_hash(0, "evaluation", i) % 2**62 for i in range(count)])
    made = torch.cat(
        [
            generate_images(generator, tokenizer, labels[i : i + 32], seeds[i : i + 32], sampling={})
            for i in range(0, count, 32)
        ]
    )
    a, b = TinyNetwork()(made), TinyNetwork()(real)
    expected = {
        "frechet[tiny]": frechet_distance_of_features(a["pool"], b["pool"]),
        "spatial_frechet[tiny]": frechet_distance_of_features(a["spatial"], b["spatial"]),
        "kernel_distance[tiny]": kernel_distance(a["pool"], b["pool"]) if count <= 1000 else None,
        "class_score[tiny]": inception_score(a["logits"]),
    }
    precision, recall = precision_and_recall(a["pool"], b["pool"])
    expected |= {"precision[tiny]": precision, "recall[tiny]": recall}
    for name, value in expected.items():
        if name != "kernel_distance[tiny]":  # the larger side is drawn from
            assert found.scores[name] == pytest.approx(float(value), rel=1e-6, abs=1e-6), name
    assert found.scores["frechet[tiny]"] > 1e-3
    for name in ("frechet[tiny]", "kernel_distance[tiny]", "precision[tiny]"):
        assert found.stamps[name]["reference"] == "the images of the same pass"
        assert found.stamps[name]["reference_images"] == len(real)
        assert found.stamps[name]["num_generated"] == found.stamps[name]["num_images"] == count
    assert "reference" not in found.stamps["class_score[tiny]"]


def test_a_reference_file_is_what_generated_images_are_compared_with(
    tokenizer: Any, generator: TransformerGenerator, images: Any, tmp_path: Path
) -> None:
    collector = StatisticsCollector(network=TinyNetwork())
    for batch in images.pass_batches():
        collector.update(batch["image"])
    collector.result(dataset="the_set").save(tmp_path / "r.npz")
    scores = {}
    for reference in (None, str(tmp_path / "r.npz")):
        metric = FIDMetric(network=TinyNetwork(), reference=reference)
        found = ProposalEvaluator(tokenizer=tokenizer, metrics=[metric], num_generated=8).evaluate(
            generator, images
        )
        scores[reference] = found.scores["frechet[tiny]"]
    assert found.stamps["frechet[tiny]"]["reference"] == "the_set"
    assert scores[None] == pytest.approx(scores[str(tmp_path / "r.npz")], rel=1e-9)


def kinds_of_metrics() -> list[type[Metric]]:
    return [kind for kind in vars(vq.metrics).values() if isinstance(kind, type) and issubclass(kind, Metric)]


def test_each_metric_is_of_one_kind_or_the_other() -> None:
    sets = {kind.__name__ for kind in kinds_of_metrics() if issubclass(kind, SetMetric)} - {"SetMetric"}
    assert sets == {"FIDMetric", "SpatialFIDMetric", "KID", "PrecisionRecall", "InceptionScore"}
    assert set(METRICS.module_dict) <= {kind.__name__ for kind in kinds_of_metrics()}


def test_metrics_of_reconstructions_are_refused(tokenizer: Any) -> None:
    for metric in (PSNR(), FeatureCosine(network=TinyNetwork())):
        with pytest.raises(ValueError, match=r"metrics\[1\]: expected a metric of a set of images"):
            ProposalEvaluator(
                tokenizer=tokenizer, metrics=[FIDMetric(network=TinyNetwork()), metric], num_generated=4
            )


def test_tokens_are_no_reference(tokenizer: Any, generator: TransformerGenerator, tmp_path: Path) -> None:
    indices = torch.zeros(5, 1, 8, 8, dtype=torch.int64)
    files = ShardFiles(directory=tmp_path, number=0)
    write_shard(files, indices, labels=[0] * 5, keys=list("abcde"), undecodable=[], width=2)
    manifest = {
        "axes": [8, 8], "views": 1, "bytes_per_index": bytes_per_index(16), "vocabulary_size": 16,
        "class_names": ["x"], "tokenizer_sha256": "0",
    }  # fmt: skip
    write_manifest(tmp_path, manifest, 1)
    tokens = TokenLoader(dataset=TokenDataset(root=tmp_path), batch_size=5)
    for kind in (FIDMetric, KID, PrecisionRecall):
        evaluator = ProposalEvaluator(
            tokenizer=tokenizer, metrics=[kind(network=TinyNetwork())], num_generated=4
        )
        for work in (evaluator.evaluate, evaluator.check):
            with pytest.raises(ConfigError, match="val_data holds tokens"):
                work(generator, tokens)
    score = InceptionScore(network=TinyNetwork(), splits=1)
    alone = ProposalEvaluator(tokenizer=tokenizer, metrics=[score], num_generated=4)
    assert alone.evaluate(generator, tokens).scores["class_score[tiny]"] >= 1
    many = ProposalEvaluator(tokenizer=tokenizer, metrics=[score], num_generated=6)
    with pytest.raises(ConfigError, match="num_generated: expected at most the 5 samples"):
        many.evaluate(generator, tokens)


def test_the_evaluator_leaves_the_mode_as_it_was_after_an_error(
    tokenizer: Any, generator: TransformerGenerator, images: Any
) -> None:
    generator.train()
    try:
        with pytest.raises(RuntimeError, match="stop"):
            ProposalEvaluator(tokenizer=tokenizer).evaluate(generator, images, on_progress=_stop)
        assert generator.training
    finally:
        generator.eval()


def _stop(_: int) -> None:
    raise RuntimeError("stop")
