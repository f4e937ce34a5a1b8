"""Scores of a tokenizer's vectors: their definitions in float64 NumPy, on batches, two ranks and an empty rank."""

import itertools
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_ranks import run_on_ranks
from torch import nn

from vq.metrics import QuantizationError, TeacherCosine, VectorMetric

CUTS = [(0, 3), (3, 3), (3, 8)]


class Patches(nn.Module):
    """A teacher with two features per patch of 8 x 8 pixels: the means of red and of green."""

    def forward(self, image):
        return nn.functional.avg_pool2d(image[:, :2], 8).movedim(1, -1)


def make_batch(scale=3.0):
    torch.manual_seed(0)
    latent = torch.randn(8, 4, 4, 5, dtype=torch.float64) * scale + 1
    return {
        "image": torch.rand(8, 3, 32, 32) * 2 - 1,
        "latent": latent,
        "quantized": latent + torch.randn_like(latent),
        "features": torch.randn(8, 2, 4, 4),
    }


def make_metrics() -> list[VectorMetric]:
    return [QuantizationError(codebook_dim=5), TeacherCosine(teacher=Patches())]


def run(cuts, batch):
    metrics = make_metrics()
    for metric, (start, stop) in itertools.product(metrics, cuts):
        metric.update(**{name: value[start:stop] for name, value in batch.items()})
    for metric in metrics:
        metric.sync()
    computed = [metric.compute() for metric in metrics]
    assert [set(metric.ranked_scores()) for metric in metrics] == [set(scores) for scores in computed]
    return {name: value for scores in computed for name, value in scores.items()}


def reference(batch):
    z, e = batch["latent"].numpy().reshape(-1, 5), batch["quantized"].numpy().reshape(-1, 5)
    error = ((z - e) ** 2).sum(1).mean()
    image, found = batch["image"].double().numpy(), batch["features"].double().numpy()
    target = image[:, :2].reshape(8, 2, 4, 8, 4, 8).mean((3, 5))
    norms = np.linalg.norm(target, axis=1) * np.linalg.norm(found, axis=1)
    return {
        "quantization_error": error,
        "quantization_error_relative": error / ((z - z.mean(0)) ** 2).sum(1).mean(),
        "teacher_cosine": (1 - (target * found).sum(1) / norms).mean(),
    }


@pytest.mark.parametrize("cuts", [[(0, 8)], CUTS])
def test_they_are_their_definitions(cuts):
    batch = make_batch()
    assert run(cuts, batch) == pytest.approx(reference(batch), rel=1e-6)


def test_a_large_mean_costs_no_digits():
    batch = make_batch()
    batch["latent"] += 1e5
    batch["quantized"] += 1e5
    expected = reference(make_batch())["quantization_error_relative"]
    assert run(CUTS, batch)["quantization_error_relative"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_codes_of_length_one_the_vectors_are_compared_on_the_sphere(dtype):
    batch = make_batch(scale=50.0)
    batch["quantized"] = nn.functional.normalize(batch["quantized"], dim=-1)
    on_sphere = {**batch, "latent": nn.functional.normalize(batch["latent"], dim=-1)}
    expected = reference(on_sphere)["quantization_error"]
    batch = {name: value.to(dtype) for name, value in batch.items()}
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    assert run(CUTS, batch)["quantization_error"] == pytest.approx(expected, rel=tolerance)


def test_one_code_at_the_mean_has_the_relative_error_one():
    latent = torch.randn(2, 3, 3, 5)
    metric = QuantizationError(codebook_dim=5)
    code = latent.mean(dim=(0, 1, 2)).expand_as(latent)
    metric.update(image=torch.zeros(2, 3, 8, 8), latent=latent, quantized=code)
    assert metric.compute()["quantization_error_relative"] == pytest.approx(1, abs=1e-6)


def test_vectors_that_are_all_equal_have_no_relative_error():
    metric = QuantizationError(codebook_dim=5)
    metric.update(image=torch.zeros(2, 3, 8, 8), latent=torch.ones(2, 4, 5), quantized=torch.zeros(2, 4, 5))
    assert metric.compute() == pytest.approx(
        {"quantization_error": 5, "quantization_error_relative": np.nan}, nan_ok=True
    )


def test_the_teachers_grid_is_interpolated_to_that_of_the_prediction():
    image = torch.rand(2, 3, 32, 32)
    target = Patches()(image).movedim(-1, 1)
    target = nn.functional.interpolate(target, size=(2, 6), mode="bilinear", antialias=True)
    metric = TeacherCosine(teacher=Patches())
    vectors = torch.zeros(2, 2, 6, 5)
    metric.update(image=image, latent=vectors, quantized=vectors, features=7 * target)
    assert metric.compute()["teacher_cosine"] == pytest.approx(0, abs=1e-6)


def test_autocast_changes_nothing():
    batch = make_batch()
    expected = run(CUTS, batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert run(CUTS, batch) == expected


class TestRefusals:
    def test_other_shapes(self):
        vectors = torch.zeros(1, 4, 5)
        for latent, quantized in ((vectors, vectors[:, :2]), (vectors[..., :3], vectors[..., :3])):
            with pytest.raises(
                ValueError, match=r"QuantizationError: expected vectors and codes of one shape"
            ):
                QuantizationError(codebook_dim=5).update(
                    image=torch.zeros(1, 3, 8, 8), latent=latent, quantized=quantized
                )
        with pytest.raises(ValueError, match="expected a codebook_dim of at least 1, got 0"):
            QuantizationError(codebook_dim=0)

    def test_no_features_and_those_of_another_teacher(self):
        batch = make_batch()
        with pytest.raises(ValueError, match="TeacherCosine: expected a tokenizer that predicts features"):
            TeacherCosine(teacher=Patches()).update(**{**batch, "features": None})
        with pytest.raises(ValueError, match="features with 2 channels, those of Patches, got 3"):
            TeacherCosine(teacher=Patches()).update(**{**batch, "features": torch.zeros(8, 3, 4, 4)})


def test_ranks_equal_one_process_and_one_may_be_empty():
    here = Path(__file__)
    result = subprocess.run(
        [sys.executable, here],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here.parents[2]}:{here.parents[1]}"},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


def run_rank(rank, size, expected):
    cuts = {2: [[(0, 3), (3, 8)], []], 3: [[(0, 1)], [(1, 7)], [(7, 8)]]}[size][rank]
    assert run(cuts, make_batch()) == pytest.approx(expected, rel=1e-12)


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(run_on_ranks(partial(run_rank, expected=run([(0, 8)], make_batch())), 2, 3))
