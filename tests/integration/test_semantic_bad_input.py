"""What does not fit is refused with one message before any training: teachers, their sizes, tokenizers of decoders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from commands import refused

from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer
from vq.tokenizers.checkpoint import save_weights

NET: dict[str, Any] = {"widths": [8, 8, 8], "num_blocks": 1}
TOKENIZER = {
    "type": "vq.tokenizers.ImageTokenizer",
    "encoder": {"type": "vq.networks.StridedCNNEncoder", **NET},
    "quantizer": {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [5, 4]},
    "decoder": {"type": "vq.networks.StridedCNNDecoder", **NET},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder without any downloaded weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path / "pretrained"))
    return tmp_path


@pytest.fixture
def weights(folder: Path) -> Path:
    """A trained tokenizer with the stride of the small pages."""
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(**NET),
        quantizer=FiniteScalarQuantizer(levels=[5, 4]),
        decoder=StridedCNNDecoder(**NET),
    )
    save_weights(tokenizer.state_dict(), folder / "model.safetensors", {"tokenizer": TOKENIZER})
    return folder / "model.safetensors"


@pytest.mark.parametrize(
    ("page", "arguments", "message"),
    [
        ("cluster/clip_8192_imagenet_ddp", [], "tokenizer.encoder.teacher: .*run `vq weights clip`"),
        ("vqkd/dino_8192_imagenet_ddp", [], "train_step.losses.cosine.teacher: .*run `vq weights dino`"),
        (
            "vqkd/256_emoji",
            ["--override", ".train_data.transforms[0].size:60"],
            "train_data: its images are 60 x 60, but the tokenizer scales down by 8",
        ),
        (
            "vqkd/256_emoji",
            ["--config-options", "teacher_size:120"],
            "expected image_size to be a multiple of the patch size 16, got 120; take 112",
        ),
        (
            "vqkd/256_emoji",
            [
                "--override",
                ".tokenizer.decoder.patches.channels:100",
                ".evaluator.metrics:[dict(type='vq.metrics.CodebookUsage', codebook_size=256)]",
            ],
            r"train_step.losses.cosine: FeatureAlignment: expected 112 channels \(those of the teacher\), got 100",
        ),
        (
            "cluster/256_emoji",
            ["--override", ".tokenizer.quantizer.codebook.dim:100"],
            "expected encoder.out_channels to be 100, the quantizer's codebook_dim, got 112",
        ),
        ("decoder/emoji", ["--config-options", "it_config::fid/imagenet"], "fid/imagenet.*tokenizer"),
        ("decoder/emoji", ["--config-options", "it_config::configs/nothing.py"], "there is no such config"),
        ("decoder/vqgan", [], "expected the weights of a trained tokenizer, got none; give e.g."),
        ("decoder/emoji", [], "work_dirs/vqkd/256_emoji: there is no such file or folder"),
    ],
)
def test_before_training(page: str, arguments: list[str], message: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        raise AssertionError(refused("train", "a", page, *arguments))
    assert not Path("work_dirs/a/checkpoints").exists()


class TestWeightsOfTheFrozenTokenizer:
    def test_those_of_another_architecture(self, weights: Path) -> None:
        given = ["--config-options", f"it_state_dict::{weights}", "it_config::ema/1024_emoji"]
        message = refused("train", "a", "decoder/emoji", *given)
        assert "not the weights of this model" in message
        assert "of a different shape" in message

    def test_those_of_another_codebook(self, weights: Path, folder: Path) -> None:
        page = folder / "page.py"
        page.write_text(
            "from vq.networks import StridedCNNDecoder, StridedCNNEncoder\n"
            "from vq.quantizers import EMACodebook, NormalInit, VectorQuantizer\n"
            "from vq.tokenizers import ImageTokenizer\n"
            f"net = dict(**{NET!r})\n"
            "tokenizer = dict(type=ImageTokenizer, encoder=dict(type=StridedCNNEncoder, **net), quantizer=dict("
            "type=VectorQuantizer, codebook=dict(type=EMACodebook, size=20, dim=2, init=dict(type=NormalInit))), "
            "decoder=dict(type=StridedCNNDecoder, **net))\n"
        )
        given = ["--config-options", f"it_state_dict::{weights}", f"it_config::{page}"]
        message = refused("train", "a", "decoder/emoji", *given)
        assert "not the weights of this model" in message
        assert "missing (quantizer.codebook." in message

    def test_a_part_that_it_does_not_have(self, weights: Path) -> None:
        given = [
            "--config-options",
            f"it_state_dict::{weights}",
            "--override",
            ".tokenizer.frozen:['encodr']",
        ]
        message = refused("train", "a", "decoder/finetune_emoji", *given)
        assert "has no part 'encodr'; did you mean 'encoder'" in message
