"""Linear probes in training and validation: from images and from indices, on any number of batches and ranks."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import environment
from probe_ranks import batches_of, probe_of, step_of, tiny, tokenizer_of

from vq import config
from vq.config import trained_section
from vq.data import ImageFolder, ImageLoader
from vq.engine import ProbeEvaluator, assembly
from vq.engine.evaluation.probe_evaluator import within
from vq.engine.steps.probe import features_of
from vq.errors import ConfigError
from vq.ops.images import save_png
from vq.probes import LinearProbe, PooledPixels


def test_it_learns_what_is_linearly_separable() -> None:
    torch.manual_seed(0)
    probe = LinearProbe(features=PooledPixels(patch_size=1), num_classes=3).train()
    label = torch.arange(30) % 3
    image = (torch.nn.functional.one_hot(label, 3)[:, :, None, None] * 200).to(torch.uint8).repeat(1, 1, 2, 2)
    batch = {"image": image, "label": label}
    step = step_of(probe, lr=4.0)
    scalars = [step([batch], i) for i in range(60)]
    assert float(scalars[0]["loss/total"]) == pytest.approx(math.log(3), abs=0.6)
    assert float(scalars[-1]["loss/total"]) < 0.3 * float(scalars[0]["loss/total"])
    assert float(scalars[-1]["accuracy"]) == 1.0


def test_micro_batches_equal_one_large_batch_with_their_statistics() -> None:
    (batch, *_), probes = batches_of(3), [probe_of() for _ in range(2)]
    whole, pieces = (step_of(probe) for probe in probes)
    parts = [{k: v[s] for k, v in batch.items()} for s in (slice(0, 2), slice(2, None))]
    for i in range(3):
        one, many = whole([batch], i), pieces(parts, i)
        assert torch.equal(one["loss/total"], many["loss/total"])
    for a, b in zip(*(probe.state_dict().values() for probe in probes), strict=True):
        assert torch.equal(a, b)


def test_indices_and_the_images_that_they_are_of_give_the_same_step() -> None:
    batch = batches_of(1)[0]
    stored = {"indices": tokenizer_of().encode(batch["image"]), "label": batch["label"]}
    online, offline = (step_of(probe_of()) for _ in range(2))
    assert torch.equal(online([batch], 0)["loss/total"], offline([stored], 0)["loss/total"])


def test_validation_counts_every_image_once_and_every_class_alike() -> None:
    probe, loader = probe_of().train(), assembly.make_loader(tiny(), "val_data")  # 13 images in batches of 4
    found = ProbeEvaluator(top=[1, 2]).evaluate(probe, loader)
    assert probe.training
    assert found.num_images == 13
    rows: list[tuple[list[float], int]] = []
    with torch.no_grad():
        for batch in loader.pass_batches():
            features, label = features_of(batch, probe.eval(), torch.device("cpu"))
            rows += zip(probe(features).softmax(dim=1).tolist(), label.tolist(), strict=True)
    nats = [-math.log(row[label]) for row, label in rows]
    ranks = [sorted(row, reverse=True).index(row[label]) + 1 for row, label in rows]
    by_class = {
        c: [rank == 1 for rank, (_, label) in zip(ranks, rows, strict=True) if label == c] for _, c in rows
    }
    expected = {
        "loss": sum(nats) / 13,
        "top1": sum(rank <= 1 for rank in ranks) / 13,
        "top2": sum(rank <= 2 for rank in ranks) / 13,
        "class_mean_top1": sum(sum(some) / len(some) for some in by_class.values()) / len(by_class),
    }
    assert found.scores == pytest.approx(expected, abs=1e-9)


def test_equal_and_missing_logits_do_not_count_as_right() -> None:
    nan = float("nan")
    logits = torch.tensor([[1.0, 1.0, 1.0], [nan, nan, nan], [nan, 2.0, 1.0], [3.0, 2.0, 1.0]]).double()
    found = within(logits, torch.tensor([0, 1, 0, 0]), [1, 2, 3])
    assert found.tolist() == [[False, False, True], [False] * 3, [False] * 3, [True] * 3]


def test_the_picture_frames_what_is_right_in_green_and_what_is_wrong_in_red() -> None:
    probe, loader = probe_of(), assembly.make_loader(tiny(), "val_data")
    evaluator = ProbeEvaluator(num_grid_images=1)
    label = int(loader.fixed_batch(1)["label"])
    for winner, colour in ((label, (0, 160, 0)), ((label + 1) % 4, (220, 0, 0))):
        torch.nn.init.zeros_(probe.linear.weight)
        probe.linear.bias.data = torch.nn.functional.one_hot(torch.tensor(winner), 4).double()
        picture = evaluator.picture(probe, loader)
        assert tuple(picture[:, 0, 0].tolist()) == colour
        assert torch.equal(picture[:, 3:-3, 3:-3], loader.fixed_batch(1)["image"][0])


@pytest.mark.slow
def test_one_process_and_two_ranks_train_and_score_alike() -> None:
    script = Path(__file__).with_name("probe_ranks.py")
    done = subprocess.run(
        [sys.executable, script],
        env=environment(PYTHONPATH=f"{script.parents[2]}:{script.parents[1]}"),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def refused(probe: LinearProbe, loader: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        assembly.check_data(probe, None, loader, "train_data")
    return str(caught.value)


def test_data_that_cannot_be_probed_are_refused(tmp_path: Path) -> None:
    loader = assembly.make_loader(tiny(), "train_data")
    assembly.check_data(probe_of(), None, loader, "train_data")
    few = LinearProbe(features=PooledPixels(patch_size=1), num_classes=3)
    assert "train_data: has 4 classes, the probe 3; set probe.num_classes" in refused(few, loader)
    odd = LinearProbe(features=PooledPixels(patch_size=5), num_classes=4)
    assert "images are 16 x 16" in refused(odd, loader)
    single = assembly.make_loader(tiny({".train_data.batch_size": 1}), "train_data")
    assert "expected a batch_size of at least 2, got 1" in refused(probe_of(), single)
    save_png(torch.zeros(3, 16, 16, dtype=torch.uint8), tmp_path / "a.png")
    flat = ImageLoader(dataset=ImageFolder(root=tmp_path), batch_size=2)
    assert "its images have no labels (one class), but a probe needs them" in refused(few, flat)
    with pytest.raises(
        ConfigError, match=r"evaluator\.top: expected numbers below the 4 classes of the probe, got \[1, 5\]"
    ):
        ProbeEvaluator().check(probe_of(), loader)
    ProbeEvaluator(top=[1]).check(probe_of(), loader)


def test_a_page_trains_one_model_and_says_which() -> None:
    probe = {"type": "vq.probes.LinearProbe", "num_classes": 3}
    assert trained_section({"tokenizer": {}, "probe": probe}) == "probe"
    assert trained_section({"tokenizer": {}, "generator": {}}) == "generator"
    assert trained_section({"tokenizer": {}}) == "tokenizer"
    with pytest.raises(
        ConfigError, match="a page trains one model, but this one has the sections generator and probe"
    ):
        config.check({"generator": {"type": "vq.generators.MaskedGenerator"}, "probe": probe})


@pytest.mark.parametrize("wrong", [{"top": []}, {"top": [0]}, {"every": 0}, {"num_grid_images": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected every, num_grid_images and all of top to be at least 1"):
        ProbeEvaluator(**wrong)
