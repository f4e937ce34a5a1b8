"""The codebook atlas: what is drawn beside a code are patches that have it, chosen the same way every time."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, TINY, environment
from PIL import Image

from tools.visualize_patches import LINE, Reservoir, _mixed, main
from vq import config as pages
from vq.cli import UsageError
from vq.data.stores.token_manifest import manifest_sha256
from vq.data.stores.token_store import TokenStore
from vq.engine import assembly
from vq.engine.jobs.tokenization import settings_of, tokenize
from vq.engine.jobs.views import cut_views, views_of

FSQ = ".tokenizer.quantizer:dict(type='vq.quantizers.FiniteScalarQuantizer', levels=[4, 3])"
RESIDUAL = (
    ".tokenizer.quantizer:dict(type='vq.quantizers.ResidualFiniteScalarQuantizer', levels=[3, 3], depth=2)"
)
FOLDER = ".val_data.dataset:dict(type='vq.data.ImageFolder', root='{}')"


def page_of(overrides: list[str]) -> dict[str, Any]:
    return pages.load(TINY, overrides=pages.parse_assignments(overrides)).to_dict()


def make_store(directory: Path, overrides: list[str], *, split: str = "val", crops: int = 1) -> TokenStore:
    """What vq.tokenize writes, by a tokenizer with its first weights."""
    config = page_of(overrides)
    if split == "train":
        config["val_data"]["dataset"] = config["train_data"]["dataset"]
    tokenizer = assembly.make_tokenizer(config).eval()
    with torch.no_grad():  # first weights would use a code or two
        tokenizer.pre_quant.weight.mul_(6)
    loader = assembly.make_loader(config, "val_data")
    settings = settings_of(config, tokenizer, split=split, autocast=False)
    tokenize(tokenizer, loader, directory, crops=crops, images_per_shard=5, settings=settings)
    return TokenStore(directory)


def draw(store: TokenStore, overrides: list[str], *more: object) -> Path:
    """Runs the command; the folder that it wrote."""
    return main([str(TINY), str(store.directory), "--override", *overrides, *map(str, more)]).parent


def drawn(folder: Path, section: int = 0, side: int = 2) -> dict[int, list[bytes]]:
    """The patches that the page shows for each code: cut out of the PNGs as a browser would."""
    found: dict[int, list[bytes]] = {}
    row = re.compile(
        rf"<tr id='index_{section}_code_(\d+)'>.*?width:(\d+)px;height:(\d+)px;background-image:url\((.*?)\);"
        r"background-position:0 -(\d+)px;background-size:(\d+)px (\d+)px"
    )
    for code, *numbers in row.findall((folder / "index.html").read_text()):
        sheet = np.asarray(Image.open(folder / numbers.pop(2)))
        across, height, top, all_across, all_down = map(int, numbers)
        factor = all_across // sheet.shape[1]
        assert (all_across, all_down) == (sheet.shape[1] * factor, sheet.shape[0] * factor)
        assert height == side * factor
        assert (sheet[top // factor + side] == LINE).all()
        strip = sheet[top // factor : top // factor + side, : across // factor]
        found[int(code)] = [
            strip[:, x : x + side].tobytes() for x in range(0, strip.shape[1], side + 1)
        ]  # fmt: skip
    return found


def patches_by_code(
    store: TokenStore, overrides: list[str], *, section: int, split: str = "val"
) -> dict[int, Counter]:
    """The same by brute force: every patch of every view of every image."""
    config = page_of(overrides)
    if split == "train":
        config["val_data"]["dataset"] = config["train_data"]["dataset"]
    loader = assembly.make_loader(config, "val_data")
    found: dict[int, Counter] = {}
    row = 0
    for batch in views_of(loader, store.views, (16, 16)).pass_batches():
        views = cut_views(batch["image"], store.views, (16, 16))
        for b in range(len(batch["key"])):
            for v, images in enumerate(views):
                indices = store.read(row, v).reshape(8, 8, -1)[..., section]
                for y in range(8):
                    for x in range(8):
                        patch = images[b, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].permute(1, 2, 0)
                        pixels = patch.contiguous().numpy().tobytes()
                        found.setdefault(int(indices[y, x]), Counter())[pixels] += 1
            row += 1
    assert row == len(store)
    return found


@pytest.mark.parametrize(
    ("quantizer", "split", "crops", "stack"),
    [(FSQ, "val", 1, 1), (FSQ, "train", 2, 1), (FSQ, "val", 10, 1), (RESIDUAL, "val", 1, 2)],
)
def test_what_is_drawn_beside_a_code_has_it(
    tmp_path: Path, quantizer: str, split: str, crops: int, stack: int
) -> None:
    store = make_store(tmp_path / "tokens", [quantizer], split=split, crops=crops)
    folder = draw(store, [quantizer], "--per-code", 7)
    assert folder == tmp_path / "tokens" / "patches"
    text = (folder / "index.html").read_text()
    assert text.count("<h2>") == stack
    for section in range(stack):
        expected = patches_by_code(store, [quantizer], section=section, split=split)
        assert len(expected) > 3
        shown = drawn(folder, section)
        uses = {code: sum(patches.values()) for code, patches in expected.items()}
        assert list(shown) == sorted(uses, key=lambda code: (-uses[code], code))
        for code, patches in shown.items():
            assert len(patches) == min(7, uses[code])
            assert not Counter(patches) - expected[code], f"code {code} shows a patch that has another code"
            assert (
                f"<tr id='index_{section}_code_{code}'><th scope=\"row\">{code}</th><td>{uses[code]}</td>"
                in text
            )
        share = np.array(list(uses.values())) / sum(uses.values())
        perplexity = np.exp(-(share * np.log(share)).sum())
        size = store.manifest["vocabulary_size"]
        assert (
            f"{len(uses)} of {size} codes used ({len(uses) / size:.1%}), perplexity {perplexity:.1f}, "
            f"{sum(uses.values())} tokens."
        ) in text
        for code in set(range(size)) - set(uses):
            assert re.search(rf"Never used: .*\b{code}\b", text)


def test_only_the_most_used_codes_are_drawn_and_the_page_says_so(tmp_path: Path) -> None:
    store = make_store(tmp_path / "tokens", [FSQ])
    whole = drawn(draw(store, [FSQ], "--out", tmp_path / "all"))
    folder = draw(store, [FSQ], "--codes", 2, "--out", tmp_path / "two")
    assert "; the 2 most used are drawn." in (folder / "index.html").read_text()
    assert drawn(folder) == {code: whole[code] for code in list(whole)[:2]}  # the sample of a code is its own


def test_a_process_of_its_own_writes_the_same_bytes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "tokens", [FSQ])
    done = subprocess.run(
        [sys.executable, "tools/visualize_patches.py", TINY, store.directory, "--override", FSQ],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"wrote {store.directory}/patches/index.html" in done.stderr
    written = {f.name: f.read_bytes() for f in (store.directory / "patches").iterdir()}
    assert set(written) == {"index.html", "index_0_sheet_0000.png"}
    (store.directory / "patches" / "index_5_sheet_0003.png").write_bytes(b"of an earlier atlas")
    folder = draw(store, [FSQ])
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == written


@pytest.mark.parametrize("seed", range(3))
def test_a_reservoir_holds_the_smallest_hashes_in_any_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    slots = random.integers(5, size=200)
    slots[slots == 3] = 4  # a slot of nothing
    hashes = random.permutation(200).astype(np.uint64)
    sample = Reservoir(num_slots=5, capacity=8)
    for part in np.array_split(random.permutation(200), 9):
        sample.offer(slots[part], hashes[part], part)
    for slot in range(5):
        mine = np.flatnonzero(slots == slot)
        best = mine[np.argsort(hashes[mine])][:8]
        assert sample.addresses[slot].tolist() == [*best.tolist(), *[-1] * (8 - len(best))]


def test_every_patch_is_as_likely_as_any_other() -> None:
    """Of 300 codes with 40 patches each, the 10 that are kept come from all of them alike."""
    addresses = np.arange(300 * 40)
    sample = Reservoir(num_slots=300, capacity=10)
    sample.offer(addresses // 40, _mixed(addresses.astype(np.uint64)), addresses)
    kept = np.bincount(sample.addresses.reshape(-1) % 40, minlength=40)
    assert kept.sum() == 3000
    expected, deviation = 75, (300 * 0.25 * 0.75) ** 0.5
    assert np.abs(kept - expected).max() < 4.5 * deviation


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(9):
        pixels = np.random.default_rng(i).integers(256, size=(16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "4.png").write_bytes(b"not a picture")
    return folder


def _moved(pictures: Path) -> None:
    (pictures / "2.png").rename(pictures / "2b.png")


def _gone(pictures: Path) -> None:
    (pictures / "2.png").unlink()


def _broken(pictures: Path) -> None:
    (pictures / "2.png").write_bytes(b"not a picture any more")


class TestFolders:
    def test_a_broken_image_was_left_out_and_the_folder_may_lie_elsewhere(
        self, tmp_path: Path, pictures: Path
    ) -> None:
        overrides = [FSQ, FOLDER.format(pictures)]
        store = make_store(tmp_path / "tokens", overrides)
        assert (len(store), store.manifest["num_undecodable"]) == (8, 1)
        expected = patches_by_code(store, overrides, section=0)
        elsewhere = [FSQ, FOLDER.format(pictures.rename(tmp_path / "elsewhere"))]
        for code, patches in drawn(draw(store, elsewhere)).items():
            assert not Counter(patches) - expected[code]

    @pytest.mark.parametrize(
        ("harm", "said"),
        [
            (_moved, r"expected an image with the key '2\.png' \(number 2 of the store\), got none"),
            (_gone, r"the images of val_data: expected the 9 images that were tokenized, got 8"),
            (_broken, r"2\.png: was tokenized, but can no longer be decoded"),
        ],
    )
    def test_images_that_are_not_the_stores_are_refused(
        self, tmp_path: Path, pictures: Path, harm: Callable[[Path], None], said: str
    ) -> None:
        overrides = [FSQ, FOLDER.format(pictures)]
        store = make_store(tmp_path / "tokens", overrides)
        harm(pictures)
        with pytest.raises(UsageError, match=said):
            draw(store, overrides)
        assert not (store.directory / "patches").exists()


class TestRefusals:
    @pytest.fixture
    def store(self, tmp_path: Path) -> TokenStore:
        return make_store(tmp_path / "tokens", [FSQ])

    def test_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="nothing"):
            main([str(TINY), str(tmp_path / "nothing")])

    def test_another_set_with_the_same_keys(self, store: TokenStore) -> None:
        with pytest.raises(UsageError, match=r"the store was made with dataset=.*'seed': 1.*'seed': 2"):
            draw(store, [FSQ, ".val_data.dataset.seed:2"])

    def test_other_transforms(self, store: TokenStore) -> None:
        flip = ".val_data.transforms:[dict(type='vq.data.RandomHorizontalFlip')]"
        with pytest.raises(
            UsageError, match=r"the store was made with transforms=\[\], the page has \[.*Flip"
        ):
            draw(store, [FSQ, flip])

    def test_another_tokenizer(self, store: TokenStore) -> None:
        said = r"expected indices of the shape \(8, 8, 2\), .* images of 16 x 16 pixels, got \(8, 8\)"
        with pytest.raises(UsageError, match=said):
            draw(store, [RESIDUAL])

    def test_a_changed_shard(self, store: TokenStore) -> None:
        file = store.shards[1].tokens
        content = bytearray(file.read_bytes())
        content[7] ^= 1
        file.write_bytes(content)
        with pytest.raises(UsageError, match=r"shard_00001\.bin: expected the checksum"):
            draw(store, [FSQ])

    def test_a_sequence(self, tmp_path: Path) -> None:
        inner = "dict(type='vq.quantizers.FiniteScalarQuantizer', levels=[4, 3])"
        kind = "vq.quantizers.MultiScaleResidualQuantizer"
        scales = f".tokenizer.quantizer:dict(type='{kind}', quantizer={inner}, scales=[1, 4, 8], num_convs=1)"
        store = make_store(tmp_path / "tokens", [scales])
        with pytest.raises(UsageError, match="expected a grid of 8 x 8 positions, got indices of the shape"):
            draw(store, [scales])

    def test_an_empty_store(self, store: TokenStore) -> None:
        manifest = json.loads((store.directory / "manifest.json").read_text())
        manifest |= {"shards": [], "num_images": 0}
        manifest["manifest_sha256"] = manifest_sha256(manifest)
        (store.directory / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UsageError, match="expected at least one image, got none"):
            draw(store, [FSQ])

    @pytest.mark.parametrize("option", ["--per-code", "--codes"])
    def test_nothing_to_draw(self, store: TokenStore, option: str) -> None:
        with pytest.raises(UsageError, match=f"{option}: expected at least 1, got 0"):
            draw(store, [FSQ], option, 0)

    def test_an_index_beyond_the_vocabulary(self, store: TokenStore) -> None:
        manifest = json.loads((store.directory / "manifest.json").read_text())
        manifest["vocabulary_size"] = 2
        manifest.pop("index_ranges", None)
        manifest["manifest_sha256"] = manifest_sha256(manifest)
        (store.directory / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UsageError, match="expected indices below 2, got"):
            draw(store, [FSQ])
