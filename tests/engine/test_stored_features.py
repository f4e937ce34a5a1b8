"""Stored features: the teacher's up to rounding, the same bytes however they are written, and training on them."""

import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import accepted, contents, refused
from forked_ranks import run_on_ranks
from PIL import Image

from vq import config
from vq.data import EmojiDataset, FeatureStore, TokenStore, TokenStoreError
from vq.data.stores.feature_store import DTYPES, pack_features, unpack_features
from vq.engine import assembly
from vq.engine.jobs.features import (
    DiskFullError,
    FeatureRecorder,
    StoreSize,
    frozen_networks,
    make_network,
    settings_of,
    store_features,
)
from vq.engine.loop.launch import Machine
from vq.engine.loop.step_runner import StepRunner
from vq.errors import ConfigError
from vq.ops.images import to_signed_unit
from vq.registry import build

NUM_IMAGES, SIZE = 23, 32
PAGE = Path(__file__).parents[2] / "configs" / "cluster" / "256_emoji.py"
VQ_KD = PAGE.parents[1] / "vqkd" / "256_emoji.py"
FEATURES = {"type": "vq.data.FeatureLoader", "dataset": {"type": "vq.data.FeatureDataset"}, "batch_size": 8}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Emoji in two classes, and a file that is no picture."""
    root = tmp_path_factory.mktemp("pictures")
    emoji = EmojiDataset(split="val")
    for i in range(NUM_IMAGES):
        file = root / f"class{i % 2}" / f"{i:02d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(emoji.read(i).permute(1, 2, 0).numpy()).save(file)
    (root / "class1" / "99.png").write_bytes(b"not a picture")
    return root


def page(pictures: Path, **changes: Any) -> dict[str, Any]:
    images = {
        "type": "vq.data.ImageLoader",
        "dataset": {"type": "vq.data.ImageFolder", "root": str(pictures)},
        "transforms": [{"type": "vq.data.Resize", "size": SIZE}],
        "batch_size": 4,
        "max_undecodable": 0.5,
    }
    overrides = {".train_data": images | {"batch_size": 8}, ".val_data": images | {"shuffle": False}}
    overrides |= {".tokenizer.quantizer.codebook.size": 16, ".tokenizer.quantizer.commitment_weight": 1.0}
    return config.load(PAGE, overrides=overrides | changes).to_dict()


def write(tree: dict[str, Any], out: Path, *, dtype: str = "float16", crops: int = 1, **options: Any) -> Any:
    node, network = make_network(tree)
    loader = build(tree["val_data"], path="val_data")
    return store_features(
        FeatureRecorder(network=network, dtype=dtype, crops=crops, size=loader.image_size),
        loader,
        out,
        images_per_shard=8,
        settings=settings_of(tree, node, network, split="val", autocast=False),
        **options,
    )


@pytest.fixture(scope="module")
def reference(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "reference"
    write(page(pictures), out)
    return out


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_the_store_has_the_teachers_features_up_to_half_a_unit_in_the_last_place(
    pictures: Path, tmp_path: Path, dtype: str
) -> None:
    tree = page(pictures)
    found = write(tree, tmp_path / "t", dtype=dtype, crops=2)
    store = FeatureStore(tmp_path / "t")
    store.verify()
    assert (len(store), store.views, store.axes, found.undecodable) == (
        NUM_IMAGES,
        2,
        (4, 4, 112),
        ["class1/99.png"],
    )
    assert found.num_bytes == NUM_IMAGES * 2 * 4 * 4 * 112 * DTYPES[dtype].itemsize
    assert found.num_bytes == sum(file.stat().st_size for file in (tmp_path / "t").glob("*.bin"))
    _, network = make_network(tree)
    # Rounding to the nearest of numbers with p bits changes x by at most |x| / 2^p; below the smallest normal number,
    # the distance between two numbers is fixed, and the error at most half of it.
    bits = {"float16": 11, "bfloat16": 8, "float32": 24}[dtype]
    floor = torch.finfo(DTYPES[dtype]).smallest_normal * 2.0**-bits
    index = 0
    for batch in build(tree["val_data"], path="val_data").pass_batches():
        for view, image in enumerate((batch["image"], batch["image"].flip(-1))):
            wanted = network(to_signed_unit(image)).permute(0, 2, 3, 1)
            for i in range(len(wanted)):
                error = (store.read(index + i, view) - wanted[i]).abs()
                assert bool((error <= wanted[i].abs() * 2.0**-bits + floor).all())
        assert [store.label(index + i) for i in range(len(batch["key"]))] == batch["label"].tolist()
        assert [store.key(index + i) for i in range(len(batch["key"]))] == batch["key"]
        index += len(batch["key"])
    assert index == NUM_IMAGES


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_packing_rounds_to_the_nearest_number_and_refuses_what_has_none(dtype: str) -> None:
    features = torch.randn(5, 7) * torch.logspace(-9, 4, 7)
    assert torch.equal(
        unpack_features(pack_features(features, dtype), dtype).view(5, 7), features.to(DTYPES[dtype]).float()
    )
    for value, cure in (
        (float("nan"), "damaged"),
        (-float("inf"), "damaged"),
        (torch.finfo(DTYPES[dtype]).max * 1.5, "-dtype"),
    ):
        with pytest.raises(
            TokenStoreError, match=f"expected finite features .* the largest {dtype}, got .*{cure}"
        ):
            pack_features(torch.tensor([1.0, value], dtype=torch.float64), dtype)


def test_killed_and_started_again_it_ends_with_the_same_bytes(
    pictures: Path, reference: Path, tmp_path: Path
) -> None:
    seen = 0

    def killed(num_images: int) -> None:
        nonlocal seen
        seen += num_images
        if seen > 12:  # in the second of three shards
            os.kill(os.getpid(), signal.SIGKILL)

    def begin() -> None:
        torch.set_num_threads(1)
        write(page(pictures), tmp_path / "t", on_progress=killed)

    process = get_context("fork").Process(target=begin)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    names = {file.name for file in (tmp_path / "t").iterdir()}
    assert names == {"settings.json", "shard_00000.bin", "shard_00000.notes"}
    first = tmp_path / "t" / "shard_00000.bin"
    first.write_bytes(first.read_bytes()[:-1])  # as if the disk had lost its end
    write(page(pictures), tmp_path / "t")
    assert contents(tmp_path / "t") == contents(reference)


def test_two_ranks_write_the_same_bytes(pictures: Path, reference: Path, tmp_path: Path) -> None:
    assert run_on_ranks(lambda rank, size: write(page(pictures), tmp_path / "t"), 2) == 0
    assert contents(tmp_path / "t") == contents(reference)


def test_a_damaged_store_is_refused(pictures: Path, tmp_path: Path) -> None:
    write(page(pictures), tmp_path / "t")
    shard = tmp_path / "t" / "shard_00001.bin"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    node = {**FEATURES, "dataset": {**FEATURES["dataset"], "root": str(tmp_path / "t")}}
    with pytest.raises(ConfigError, match=r"train_data: .*shard_00001\.bin: expected the checksum"):
        assembly.make_loader({"train_data": node}, "train_data")
    shard.write_bytes(content[:-1])
    with pytest.raises(
        TokenStoreError, match=r"shard_00001\.bin: expected 28672 bytes for 8 images, got 28671"
    ):
        FeatureStore(tmp_path / "t")
    with pytest.raises(TokenStoreError, match="expected the format vq-tokens-1, got 'vq-features-1'"):
        TokenStore(tmp_path / "t")


def test_features_made_otherwise_are_refused(pictures: Path, reference: Path) -> None:
    with pytest.raises(
        TokenStoreError, match=r"holds features made otherwise \(dtype: float16 there, bfloat16 now"
    ):
        write(page(pictures), reference, dtype="bfloat16")
    other = page(pictures, **{".tokenizer.encoder.downsample_factor": 16})
    with pytest.raises(
        TokenStoreError, match=r"made otherwise \(axes: \[4, 4, 112\] there, \[2, 2, 112\] now"
    ):
        write(other, reference)


def test_a_disk_without_room_is_refused_before_any_work(tmp_path: Path) -> None:
    size = StoreSize(num_images=10**12, views=10, axes=(16, 16, 1024), dtype="float16")
    assert size.num_bytes == 10**12 * 10 * 16 * 16 * 1024 * 2
    with pytest.raises(
        DiskFullError, match=r"expected 5,242,880,000,000,000,000 free bytes for 1,000,000,000,000 im"
    ):
        size.check_disk(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    small = StoreSize(num_images=3, views=1, axes=(2, 2, 5), dtype="float32")
    assert str(small) == "3 images x 2 x 2 x 5 (float32) = 0.0 MB of features"
    assert small.check_disk(tmp_path) > 240


def test_the_frozen_networks_of_a_page(pictures: Path) -> None:
    assert list(frozen_networks(page(pictures))) == ["tokenizer.encoder"]
    tree = config.load(VQ_KD).to_dict()
    place = "train_step.losses.cosine.teacher"
    assert list(frozen_networks(tree)) == [place]
    with pytest.raises(ConfigError, match=f"--teacher: got no frozen network at x; expected one of {place}"):
        make_network(tree, "x")
    losses = tree["train_step"]["losses"]
    losses["same"] = losses["cosine"]
    losses["finer"] = {**losses["cosine"], "teacher": {**losses["cosine"]["teacher"], "downsample_factor": 8}}
    with pytest.raises(
        ConfigError, match=f"got several; expected one of {place}, train_step.losses.finer.teacher"
    ):
        make_network(tree)
    assert make_network(tree, "train_step.losses.finer.teacher")[1].channels == 40
    with pytest.raises(ConfigError, match="--features: expected a page with a teacher"):
        make_network(config.load(PAGE.parents[1] / "fsq" / "1000_emoji.py").to_dict())


def test_the_command_tells_the_size_first(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = [
        f".val_data.dataset:dict(type='vq.data.ImageFolder',root={str(pictures)!r})",
        ".val_data.max_undecodable:0.5",
    ]
    words = ["run", PAGE, "--features", "--override", *changes]
    said = accepted("tokenize", *words, "--feature-dtype", "bfloat16")
    told = said.index("24 images x 8 x 8 x 112 (bfloat16) = 0.3 MB of features;")
    assert told < said.index("wrote 23 images, 0.33 MB of features, to work_dirs/run/features/val")
    assert FeatureStore(tmp_path / "work_dirs/run/features/val").manifest["dtype"] == "bfloat16"
    assert "holds features made otherwise (dtype: bfloat16 there, float16 now)" in refused("tokenize", *words)
    assert "--teacher: has no effect without --features" in refused("tokenize", "run", PAGE, "--teacher", "x")
    assert "do not depend on a run's weights" in refused("tokenize", *words, "--load-model-from", "x")
    cropped = refused("tokenize", *words, ".val_data.transforms[0].size:36", "--out", "x")
    assert "val_data: TeacherEncoder: expected a height and width that are multiples of 8" in cropped


def trained(tree: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[float]]:
    step = assembly.make_step(tree, assembly.make_tokenizer(tree))
    loader = assembly.make_loader(tree, "train_data")
    losses = [
        float(result.scalars["loss/total"])
        for result in StepRunner(train_step=step, data=loader, seed=0).run(stop=5)
    ]
    return step.model.state_dict(), losses


def test_training_on_stored_features_equals_training_on_images(pictures: Path, tmp_path: Path) -> None:
    # In a store, the images after one that cannot be decoded have other numbers, and so another place in an epoch.
    shutil.copytree(pictures, tmp_path / "pictures", ignore=shutil.ignore_patterns("99.png"))
    tree = page(tmp_path / "pictures")
    write(tree, tmp_path / "t", dtype="float32")
    stored = tree | {
        "train_data": {**FEATURES, "dataset": {**FEATURES["dataset"], "root": str(tmp_path / "t")}}
    }
    (weights, losses), (others, other_losses) = trained(tree), trained(stored)
    assert losses == pytest.approx(other_losses, rel=1e-5)
    assert min(losses) > 1
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-4, atol=1e-4)


def refused_data(tree: dict[str, Any], folder: Path) -> str:
    machine = Machine(device="cpu", rank=0, world_size=1, threads=1, autocast=False)
    step = assembly.make_step(tree, assembly.make_tokenizer(tree))
    with pytest.raises(ConfigError) as caught:
        assembly.make_trainer(tree, folder, step, machine, seed=0)
    return str(caught.value)


def test_features_that_the_encoder_would_not_compute_are_refused(
    pictures: Path, reference: Path, tmp_path: Path
) -> None:
    stored = {**FEATURES, "dataset": {**FEATURES["dataset"], "root": str(reference)}}
    other = page(pictures, **{".train_data": stored, ".tokenizer.encoder.teacher.downsample_factor": 16})
    assert "holds features of another network" in refused_data(other, tmp_path)
    loss = {
        "type": "vq.losses.FeatureAlignment",
        "teacher": {"type": "vq.networks.EfficientNetTeacher"},
        "source": "quantized",
    }
    changes = {
        ".train_data": stored,
        ".train_step.losses": {"a": loss},
        ".train_step.weights": {"a": 1.0, "quantizer": 1.0},
    }
    said = refused_data(page(pictures, **changes), tmp_path)
    assert (
        "holds features and no images, with which ReconstructionStep and its losses (a) would compare" in said
    )
    said = refused_data(page(pictures, **{".val_data": stored}), tmp_path)
    assert said == "val_data: holds features; an evaluator needs images"
    tree = config.load(VQ_KD, overrides={".train_data": stored}).to_dict()
    assert "a FeatureTokenizer with a TeacherEncoder" in refused_data(tree, tmp_path)
