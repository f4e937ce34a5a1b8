"""A token store is bound to the images it was made from, by name and content, and to all that decides the tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vq.data import DigitsDataset, ImageFolder, ImageLoader, TokenStore, TokenStoreError
from vq.engine.jobs.tokenization import settings_of, tokenize
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    torch.manual_seed(0)
    return ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8, 8), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[8, 8]),
        decoder=StridedCNNDecoder(widths=(8, 8), num_blocks=1),
    ).eval()


def draw(root: Path, names: list[str], seed: int) -> None:
    pixels = np.random.default_rng(seed)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        # A picture of noise has the same size whatever the noise.
        Image.fromarray(pixels.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / name)


def store(tokenizer: Any, root: Path, out: Path, **changes: Any) -> list[Any]:
    loader = ImageLoader(dataset=ImageFolder(root=root), batch_size=2, shuffle=False)
    given: dict[str, Any] = {"settings": {"tokenizer_sha256": "x"}, "images_per_shard": 4}
    tokenize(tokenizer, loader, out, **(given | changes))
    found = TokenStore(out)
    found.verify()
    return [(found.key(i), found.read(i).tolist()) for i in range(len(found))]


NAMES = [f"{c}/{i}.png" for c in "ab" for i in range(5)]


def test_other_images_under_the_same_names_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    draw(tmp_path / "one", NAMES, seed=0)
    whole = store(tokenizer, tmp_path / "one", tmp_path / "t")
    assert store(tokenizer, tmp_path / "one", tmp_path / "t") == whole
    for number in (1, 2):  # a restart: the first shard is whole
        (tmp_path / "t" / f"shard_{number:05d}.notes").unlink()
    (tmp_path / "t" / "manifest.json").unlink()
    (tmp_path / "one").rename(tmp_path / "before")
    draw(tmp_path / "one", NAMES, seed=1)
    with pytest.raises(
        TokenStoreError, match=r"tokens of other images under the names of a/0\.png to a/3\.png"
    ):
        store(tokenizer, tmp_path / "one", tmp_path / "t")
    assert not (tmp_path / "t" / "manifest.json").exists()
    # A copy of the set has other times of change, and is the same set.
    (tmp_path / "one").rename(tmp_path / "other")
    draw(tmp_path / "one", NAMES, seed=0)
    assert store(tokenizer, tmp_path / "one", tmp_path / "t") == whole


@pytest.mark.parametrize("change", ["renamed", "added", "moved to another class"])
def test_other_names_are_refused(tokenizer: Any, tmp_path: Path, change: str) -> None:
    draw(tmp_path / "s", NAMES, seed=0)
    store(tokenizer, tmp_path / "s", tmp_path / "t")
    if change == "added":
        draw(tmp_path / "s", ["b/x.png"], seed=2)
    else:
        name = "b/y.png" if change == "renamed" else "a/9.png"
        (tmp_path / "s" / "b/4.png").rename(tmp_path / "s" / name)
    with pytest.raises(TokenStoreError, match="keys_sha256"):
        store(tokenizer, tmp_path / "s", tmp_path / "t")


def test_a_broken_image_that_was_mended_is_another_image(tokenizer: Any, tmp_path: Path) -> None:
    draw(tmp_path / "s", NAMES, seed=0)
    content = (tmp_path / "s/a/1.png").read_bytes()
    (tmp_path / "s/a/1.png").write_bytes(content[:60])
    loader = ImageLoader(
        dataset=ImageFolder(root=tmp_path / "s"), batch_size=2, shuffle=False, max_undecodable=0.5
    )
    given: dict[str, Any] = {"settings": {"tokenizer_sha256": "x"}, "images_per_shard": 4}
    assert tokenize(tokenizer, loader, tmp_path / "t", **given).undecodable == ["a/1.png"]
    assert tokenize(tokenizer, loader, tmp_path / "t", **given).num_images == 9
    (tmp_path / "s/a/1.png").write_bytes(content)
    with pytest.raises(TokenStoreError, match="other images"):
        tokenize(tokenizer, loader, tmp_path / "t", **given)


def test_shards_without_settings_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    draw(tmp_path / "s", NAMES, seed=0)
    store(tokenizer, tmp_path / "s", tmp_path / "t")
    for text in ("{", "[]", "\xff", "null"):
        (tmp_path / "t/settings.json").write_text(text, encoding="latin-1")
        with pytest.raises(TokenStoreError, match=r"settings\.json cannot be read.*choose another --out"):
            store(tokenizer, tmp_path / "s", tmp_path / "t")
    (tmp_path / "t/settings.json").unlink()
    with pytest.raises(TokenStoreError, match=r"no settings\.json that says what it was made for"):
        store(tokenizer, tmp_path / "s", tmp_path / "t")
    (tmp_path / "file").write_text("x")
    with pytest.raises(TokenStoreError, match="expected a folder, got a file"):
        store(tokenizer, tmp_path / "s", tmp_path / "file")


def test_a_set_without_files_is_bound_by_its_pixels() -> None:
    digits = DigitsDataset(split="val")
    assert digits.sha256(0) == DigitsDataset(split="val").sha256(0) != digits.sha256(1)


def test_what_the_page_says_of_the_tokens_is_part_of_the_settings(tokenizer: Any) -> None:
    page = {"tokenizer": {"type": "x"}, "val_data": {"dataset": {"type": "y"}, "transforms": []}}
    settings = settings_of(page, tokenizer, split="val", autocast=False)
    assert json.loads(json.dumps(settings)) == settings
    assert {"tokenizer_sha256", "transforms", "dataset", "autocast", "split"} <= set(settings)
