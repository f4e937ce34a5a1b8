"""Indices of a place that use a part of the vocabulary: sampling stays inside, so that every sample can be decoded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_generators import KINDS, transformer

from vq.data import ImageLoader, ProceduralDataset, TokenDataset, TokenLoader
from vq.engine import ProposalEvaluator, ProposalStep
from vq.engine.evaluation.sampling import generate_images
from vq.engine.jobs.tokenization import tokenize
from vq.engine.steps.generator import decay_groups
from vq.engine.steps.schedules import Constant
from vq.generators import Generator, TransformerGenerator
from vq.networks import VQVAEDecoder, VQVAEEncoder
from vq.quantizers import LearnedCodebook, NormalInit, VectorQuantizer
from vq.tokenizers import TwoLevelTokenizer

SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"top_k": 2},
    {"top_k": 50},
    {"top_p": 0.4},
    {"guidance": 3.0, "temperature": 5.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_draws_inside_one_range(name: str, settings: dict[str, Any]) -> None:
    generator = KINDS[name]().eval()
    label, seeds = torch.arange(12) % 3, torch.arange(12)
    drawn = generator.generate(label, seeds=seeds, ranges=[(4, 7)], **settings)
    assert set(drawn.unique().tolist()) <= {4, 5, 6}
    if not settings:
        assert set(drawn.unique().tolist()) == {4, 5, 6}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_each_index_of_a_place_has_its_own_range(settings: dict[str, Any]) -> None:
    ranges = [(0, 3), (3, 12), (11, 12)]
    drawn = KINDS["stacked"]().generate([0, 1, 2], seeds=[0, 1, 2], ranges=ranges, **settings)
    for depth, (start, stop) in enumerate(ranges):
        assert drawn[..., depth].min() >= start
        assert drawn[..., depth].max() < stop


def test_the_whole_vocabulary_as_a_range_changes_no_draw() -> None:
    for name in KINDS:
        generator = KINDS[name]()
        plain = generator.generate([0, 1], seeds=[3, 4])
        assert torch.equal(plain, generator.generate([0, 1], seeds=[3, 4], ranges=[(0, 12)]))


def test_ranges_that_do_not_fit_are_refused() -> None:
    stacked = KINDS["stacked"]()
    with pytest.raises(ValueError, match=r"ranges: expected one pair .* each of the 3 indices of a position"):
        stacked.generate([0], seeds=[0], ranges=[(0, 3), (3, 5)])
    for bad in [(0, 13), (5, 5), (-1, 3)]:
        with pytest.raises(ValueError, match="ranges: expected 0 <= start < stop <= 12"):
            stacked.generate([0], seeds=[0], ranges=[bad])
    prefix = torch.tensor([[[0, 2, 11]]])
    with pytest.raises(ValueError, match="prefix: expected 3 to 11, got 2"):
        stacked.generate([0], seeds=[0], ranges=[(0, 3), (3, 12), (11, 12)], prefix=prefix)


def two_levels() -> TwoLevelTokenizer:
    def encoder(halvings: int, channels: int = 3) -> VQVAEEncoder:
        return VQVAEEncoder(width=8, num_blocks=1, block_width=4, num_halvings=halvings, in_channels=channels)

    def decoder(halvings: int, channels: int = 3) -> VQVAEDecoder:
        return VQVAEDecoder(
            width=8, num_blocks=1, block_width=4, num_halvings=halvings, out_channels=channels
        )

    def quantizer(size: int) -> VectorQuantizer:
        return VectorQuantizer(codebook=LearnedCodebook(size=size, dim=4, init=NormalInit()))

    return TwoLevelTokenizer(
        bottom_encoder=encoder(2),
        top_encoder=encoder(1, 8),
        top_quantizer=quantizer(3),
        bottom_quantizer=quantizer(8),
        top_decoder=decoder(1, 8),
        decoder=decoder(2),
    ).eval()


class Images:
    """Eight pictures of noise."""

    def _batch(self, count: int) -> dict[str, Any]:
        image = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8)
        return {"image": image, "label": torch.arange(count) % 2, "key": [str(i) for i in range(count)]}

    def fixed_batch(self, num: int) -> dict[str, Any]:
        return self._batch(num)

    def pass_batches(self) -> list[dict[str, Any]]:
        return [self._batch(4), self._batch(4)]


def two_level_generator(tokenizer: TwoLevelTokenizer, num_classes: int = 2) -> Generator:
    return TransformerGenerator(
        transformer=transformer(),
        vocabulary_size=tokenizer.codebook_size,
        num_classes=num_classes,
        grid=(2, 2),
        num_indices=5,
        depth_transformer=transformer(depth=1),
    )


def test_a_two_level_tokenizer_says_the_range_of_each_index() -> None:
    tokenizer = two_levels()
    assert tokenizer.index_ranges == ((0, 3), (3, 11), (3, 11), (3, 11), (3, 11))
    indices = tokenizer.encode(torch.rand(4, 3, 16, 16) * 2 - 1)
    for depth, (start, stop) in enumerate(tokenizer.index_ranges):
        assert start <= indices[..., depth].min() <= indices[..., depth].max() < stop


def test_a_generator_over_two_levels_trains_validates_and_generates() -> None:
    torch.manual_seed(0)
    tokenizer = two_levels()
    generator = two_level_generator(tokenizer)
    images = Images()
    step = ProposalStep(
        generator=generator,
        tokenizer=tokenizer,
        optimizer=torch.optim.AdamW(decay_groups(generator), lr=1e-3),
        schedule=Constant(),
    )
    for i in range(2):
        assert step([images.fixed_batch(4)], i)["loss/total"].isfinite()
    evaluator = ProposalEvaluator(tokenizer=tokenizer, num_grid_images=2, sampling={"temperature": 5.0})
    assert evaluator.evaluate(generator, images).num_images == 8
    assert evaluator.picture(generator, images).shape[1] > 3 * 16
    made = generate_images(
        generator, tokenizer, torch.arange(40) % 2, torch.arange(40), sampling={"temperature": 9.0}
    )
    assert made.shape == (40, 3, 16, 16)


def test_a_store_of_two_levels_records_the_ranges_and_trains_a_generator(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = two_levels()
    images = ImageLoader(dataset=ProceduralDataset(num_images=8, image_size=16), batch_size=4, shuffle=False)
    tokenize(tokenizer, images, tmp_path / "tokens", settings={"tokenizer_sha256": "x"})
    loader = TokenLoader(dataset=TokenDataset(root=tmp_path / "tokens"), batch_size=4)
    loader.check()
    assert loader.dataset.store.manifest["index_ranges"] == [[0, 3], [3, 11], [3, 11], [3, 11], [3, 11]]
    generator = two_level_generator(tokenizer, num_classes=4)
    step = ProposalStep(
        generator=generator,
        tokenizer=None,
        optimizer=torch.optim.AdamW(decay_groups(generator), lr=1e-3),
        schedule=Constant(),
    )
    assert step([next(loader.train_batches(seed=0))], 0)["loss/total"].isfinite()
    evaluator = ProposalEvaluator(tokenizer=tokenizer, num_grid_images=4, sampling={"temperature": 9.0})
    assert evaluator.evaluate(generator, loader).num_images == 8
    assert evaluator.picture(generator, loader).shape[1] > 3 * 16
