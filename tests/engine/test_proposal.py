"""Generators in training, in validation and at work: from indices and from images, on any number of batches."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY, environment
from masked_ranks import ACCURACY_ROUNDING, masked_scores

from vq import config
from vq.data import read_image
from vq.engine import ProposalEvaluator, ProposalStep, assembly
from vq.engine.jobs.generation import ImageSource, Wanted, plan, write_images
from vq.engine.steps.generator import decay_groups, tokens_of
from vq.engine.steps.schedules import Constant
from vq.generators import DecoderTransformer, LlamaStyle, TransformerGenerator

Make = Callable[..., TransformerGenerator]


@pytest.fixture
def tokenizer() -> torch.nn.Module:
    return assembly.make_tokenizer(
        config.load(TINY).to_dict(), seed=1
    ).eval()  # 16 px become 8 x 8 of 16 codes


@pytest.fixture
def make() -> Make:
    def make_one(**changes: Any) -> TransformerGenerator:
        torch.manual_seed(0)
        arguments: dict[str, Any] = {
            "vocabulary_size": 16,
            "num_classes": 4,
            "grid": (8, 8),
            "class_dropout": 0.0,
        }
        transformer = DecoderTransformer(width=32, depth=2, num_heads=2, style=LlamaStyle(), dropout=0.0)
        return TransformerGenerator(transformer=transformer, **(arguments | changes))

    return make_one


def step_of(
    generator: torch.nn.Module, tokenizer: torch.nn.Module | None = None, lr: float = 1e-2
) -> ProposalStep:
    return ProposalStep(
        generator=generator,
        tokenizer=tokenizer,
        optimizer=torch.optim.AdamW(decay_groups(generator), lr=lr),
        schedule=Constant(),
    )


def batch_of(count: int = 8) -> dict[str, Any]:
    indices = torch.randint(16, (count, 8, 8), generator=torch.Generator().manual_seed(3))
    return {"indices": indices, "label": torch.arange(count) % 4, "key": [str(i) for i in range(count)]}


def test_it_learns_a_batch_by_heart(make: Make) -> None:
    step = step_of(make().train())
    losses = [float(step([batch_of(4)], i)["loss/total"]) for i in range(80)]
    assert losses[0] == pytest.approx(torch.log(torch.tensor(16.0)).item(), abs=0.3)
    assert losses[-1] < 0.3 * losses[0]


def test_micro_batches_equal_one_large_batch(make: Make) -> None:
    # In float64: Adam divides a gradient that is zero but for rounding by its own size.
    whole, pieces, batch = step_of(make().double().train()), step_of(make().double().train()), batch_of(8)
    halves = [{k: v[s] for k, v in batch.items()} for s in (slice(0, 4), slice(4, 8))]
    for i in range(3):
        one, many = whole([batch], i), pieces(halves, i)
        torch.testing.assert_close(one["loss/total"], many["loss/total"], atol=1e-9, rtol=0)
    for a, b in zip(whole.model.parameters(), pieces.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=0)  # the rate times rounding over Adam's eps of 1e-8


def test_images_are_tokenized_on_the_spot(make: Make, tokenizer: torch.nn.Module) -> None:
    loader = assembly.make_loader(config.load(TINY).to_dict(), "train_data")
    batch = next(iter(loader.train_batches(seed=0)))
    indices, label = tokens_of(batch, tokenizer, torch.device("cpu"))
    stored = {"indices": indices, "label": label, "key": batch["key"]}
    online, offline = step_of(make().train(), tokenizer), step_of(make().train())
    assert torch.equal(online([batch], 0)["loss/total"], offline([stored], 0)["loss/total"])
    with pytest.raises(ValueError, match="the data are images; give a tokenizer"):
        step_of(make())([batch], 0)


def test_validation_counts_every_index_once(make: Make, tokenizer: torch.nn.Module) -> None:
    loader = assembly.make_loader(config.load(TINY).to_dict(), "val_data")  # 13 images in batches of 4
    generator = make()
    scores = ProposalEvaluator(tokenizer=tokenizer).evaluate(generator.train(), loader)
    assert generator.training
    assert scores.num_images == 13
    total = []
    with torch.no_grad():
        for batch in loader.pass_batches():
            indices, label = tokens_of(batch, tokenizer, torch.device("cpu"))
            total.append(generator.eval()(indices, label).loss * len(label))
    assert scores.scores["loss"] == pytest.approx(float(torch.stack(total).sum()) / 13, abs=1e-5)
    perplexity = torch.tensor(scores.scores["loss"]).exp().item()
    assert scores.scores["token_perplexity"] == pytest.approx(perplexity, rel=1e-4)
    assert scores.scores["loss_per_position"] == scores.scores["loss"] * generator.num_indices
    picture = ProposalEvaluator(tokenizer=tokenizer, num_grid_images=3).picture(generator, loader)
    assert picture.shape[1] > 3 * 16
    assert picture.shape[2] >= 3 * 16


@pytest.mark.slow
def test_validation_of_masked_generation_does_not_depend_on_the_batches_or_ranks(
    tokenizer: torch.nn.Module,
) -> None:
    scores = [masked_scores(tokenizer, batch_size) for batch_size in (1, 4, 5, 13)]
    for some in scores:
        assert some.keys() == scores[0].keys()
        for name, value in scores[0].items():
            tolerance = ACCURACY_ROUNDING if name == "token_accuracy" else 1e-9
            assert some[name] == pytest.approx(value, rel=tolerance), name
    script = Path(__file__).with_name("masked_ranks.py")
    done = subprocess.run(
        [sys.executable, script, json.dumps(scores[0])],
        env=environment(PYTHONPATH=f"{script.parents[2]}:{script.parents[1]}"),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def apart(a: Path, b: Path) -> int:
    """The largest difference of two pictures' pixels."""
    one, other = (read_image(path, path.name).int() for path in (a, b))
    return int((one - other).abs().max())


def test_pictures_are_the_same_whatever_is_made_with_them_and_none_is_made_twice(
    make: Make, tokenizer: torch.nn.Module, tmp_path: Path
) -> None:
    # In float64 no draw tips with the rounding that another batch size brings; the float32 decoder's may still
    # move a pixel from one whole number to the next.
    generator = make().eval().double()
    source = ImageSource(generator=generator, tokenizer=tokenizer, sampling={"guidance": 1.5}, seed=5)
    given: dict[str, Any] = {"settings": {"weights_sha256": "x"}}
    wanted = plan([0, 2], num=None, num_per_class=3)
    write_images(source, wanted, tmp_path / "all", batch_size=6, **given)
    write_images(source, wanted[::2], tmp_path / "some", batch_size=2, **given)
    for w in wanted[::2]:
        assert apart(tmp_path / "all" / w.file, tmp_path / "some" / w.file) <= 1
    kept = (tmp_path / "some" / wanted[0].file).stat().st_mtime_ns
    write_images(source, wanted, tmp_path / "some", batch_size=4, **given)
    assert (tmp_path / "some" / wanted[0].file).stat().st_mtime_ns == kept
    assert apart(tmp_path / "some_grid.png", tmp_path / "all_grid.png") <= 1
    other = write_images(replace(source, seed=6), wanted, tmp_path / "other", batch_size=6, **given)
    assert apart(other, tmp_path / "all_grid.png") > 1
    samples = json.loads((tmp_path / "some" / "samples.json").read_text())["samples"]
    assert [s["class"] for s in samples] == [0, 2] * 3
    with pytest.raises(ValueError, match=r"holds images made otherwise \(seed: 5 there, 6 now\)"):
        write_images(replace(source, seed=6), wanted, tmp_path / "all", batch_size=6, **given)


def test_the_plan_goes_round_the_classes() -> None:
    assert [(w.label, w.number) for w in plan([7, 3], num=3, num_per_class=None)] == [(7, 0), (3, 0), (7, 1)]
    assert len(plan([7, 3], num=None, num_per_class=5)) == 10
    assert Wanted(label=7, number=12).file == "class0007_00012.png"
