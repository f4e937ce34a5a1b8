"""BEiT v2's tokenizer (VQ-KD): its outputs, recorded by `record_beitv2.py`, are those of the converted tokenizer."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_models import VQKD_SIZES, fill_vqkd, vqkd_image
from torch import Tensor, nn

import vq
from tools.convert_checkpoints import main
from vq.config import load
from vq.errors import UserError
from vq.interop import InteropError, describe_beitv2, from_beitv2, from_dialect
from vq.layers import LearnedPositions, LinearAttention, SoftmaxAttention, Transformer
from vq.registry import build
from vq.tokenizers.checkpoint import read_config

# Three blocks in float32 on features of order 1; a tensor in a wrong place moves them by 0.1 and more.
TOLERANCE = {"rtol": 0, "atol": 2e-5}
DECODERS = {"1x768x12_clip": (1, 512), "3x768x12_clip": (3, 512), "1x768x12_dino": (1, 768)}

PUBLISHED_SIZES = {("encoder", "1x768x12_clip"): "86.40", ("decoder", "1x768x12_clip"): "8.25"}
"""Millions of parameters, from the paper's published models."""


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("beitv2.npz")) as file:
        return dict(file)


def shapes(recorded: dict[str, np.ndarray], suffix: str = "") -> dict[str, tuple[int, ...]]:
    pairs = zip(recorded[f"names{suffix}"], recorded[f"shapes{suffix}"], strict=True)
    return {str(name): tuple(map(int, str(shape).split())) for name, shape in pairs}


@pytest.fixture
def state(recorded: dict[str, np.ndarray]) -> dict[str, Tensor]:
    tensors = {name: torch.zeros(shape) for name, shape in shapes(recorded).items()}
    fill_vqkd(tensors)
    return tensors


@pytest.fixture
def file(state: dict[str, Tensor], tmp_path: Path) -> Path:
    """A training file: the teacher and the arguments are stored with the weights."""
    path = tmp_path / "vqkd_encoder_base_decoder_1x768x12_clip.pth"
    rest = {"teacher_model.visual.proj": torch.zeros(2, 2), "scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    torch.save({"model": state | rest, "args": argparse.Namespace(lr=1e-3), "epoch": 99}, path)
    return path


def run(*words: str | Path) -> str:
    """Runs the converter; returns the message of its error, or nothing."""
    try:
        main([str(word) for word in words])
    except UserError as error:
        return str(error)
    return ""


def network(*, heads: int = 2, attention: nn.Module | None = None) -> Transformer:
    """The transformer of the recorded encoder, with changes."""
    positions = LearnedPositions(width=128, grid=(4, 4), offset=0.1)
    return Transformer(width=128, depth=2, num_heads=heads, attention=attention, positions=positions)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", DECODERS)
def test_every_tensor_of_the_published_models_has_a_counterpart(
    recorded: dict[str, np.ndarray], name: str
) -> None:
    depth, channels = DECODERS[name]
    published = {n: torch.full((), 32**-0.5).expand(s) for n, s in shapes(recorded, f"_{name}").items()}
    page = load(
        "configs/vqkd/clip_8192_imagenet_ddp.py",
        options={"teacher_channels": channels},
        overrides={".tokenizer.decoder.transformer.depth": depth},
    ).to_dict()
    assert describe_beitv2(published, with_decoder=True) == page["tokenizer"]
    with torch.device("meta"):
        tokenizer = build(page["tokenizer"], path="tokenizer")
    own = {n: t.shape for n, t in tokenizer.state_dict().items()}
    assert {n: t.shape for n, t in from_beitv2(published).items()} == own
    for part, its_head in (("encoder", "encode_task_layer"), ("decoder", "decode_task_layer")):
        theirs = sum(tensor.numel() for n, tensor in published.items() if n.startswith((part, its_head)))
        if (part, name) in PUBLISHED_SIZES:
            assert f"{theirs / 1e6:.2f}" == PUBLISHED_SIZES[part, name]
        assert count(tokenizer.get_submodule(part)) == theirs - 768  # the class token includes its position


@pytest.mark.parametrize("size", VQKD_SIZES)
@torch.no_grad()
def test_indices_and_features_are_theirs(
    recorded: dict[str, np.ndarray], file: Path, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("beitv2", file, "--options", "with_decoder:True", "--suffix", ".converted.with_decoder") == ""
    out = file.with_name(f"{file.name}.converted.with_decoder")
    assert capsys.readouterr().out.startswith(
        f"{out}: {len(shapes(recorded)) + 2} tensors of {file.name} read"
    )
    tokenizer = vq.load(out)
    image = vqkd_image(size) * 2 - 1
    side = size // 8
    wanted = {
        name: torch.from_numpy(recorded[f"{name}_{size}"])
        for name in ("features", "indices", "codes", "decoded")
    }
    assert wanted["features"].std() > 0.1  # of order 1, so that the tolerance is meaningful
    torch.testing.assert_close(tokenizer.latent(image).flatten(1, 2), wanted["features"], **TOLERANCE)
    indices = tokenizer.encode(image)
    assert len(indices.unique()) > 15
    assert torch.equal(indices, wanted["indices"].view(2, side, side))
    codes = tokenizer.codes(indices)
    torch.testing.assert_close(codes.movedim(-1, 1), wanted["codes"], **TOLERANCE)
    decoded = tokenizer(image).reconstruction
    torch.testing.assert_close(decoded.flatten(2).mT, wanted["decoded"], **TOLERANCE)


@torch.no_grad()
def test_without_the_decoder(
    recorded: dict[str, np.ndarray], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["--options", "with_decoder:False"]):
        assert run("beitv2", file, *words) == ""
        out = file.with_name(f"{file.name}.converted")
        assert "without the decoder (--options with_decoder:True keeps it)" in capsys.readouterr().out
        tokenizer = vq.load(out)
        assert tokenizer.decoder is None
        indices = tokenizer.encode(vqkd_image(32) * 2 - 1)
        assert torch.equal(indices.flatten(), torch.from_numpy(recorded["indices_32"]).flatten())
        out.unlink()


def test_a_page_instead_of_the_description(file: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text(PAGE)
    assert run("beitv2", file, "--config", page, "--out", tmp_path / "out.safetensors") == ""
    config = read_config(tmp_path / "out.safetensors")
    assert config["trainer"]["max_steps"] == 4
    assert config["tokenizer"] == describe_beitv2(state, with_decoder=False)


PAGE = """
from vq.engine import Trainer
from vq.layers import LearnedPositions, PixelPatches, Transformer
from vq.networks import ViTEncoder
from vq.quantizers import CosineDistance, KMeansInit, SphericalEMACodebook, VectorQuantizer
from vq.tokenizers import FeatureTokenizer

tokenizer = dict(
    type=FeatureTokenizer,
    encoder=dict(
        type=ViTEncoder,
        patches=dict(type=PixelPatches, size=8),
        transformer=dict(
            type=Transformer, width=128, depth=2, num_heads=2,
            positions=dict(type=LearnedPositions, width=128, grid=(4, 4), offset=0.1),
        ),
        num_extra_tokens=1,
        out_channels=8,
    ),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(type=SphericalEMACodebook, size=64, dim=8, decay=0.99, init=dict(type=KMeansInit)),
        distance=dict(type=CosineDistance),
        commitment_weight=1.0,
    ),
)
trainer = dict(type=Trainer, max_steps=4)
"""


class TestRefused:
    def test_a_file_of_another_layout(self, tmp_path: Path) -> None:
        other = tmp_path / "last.ckpt"
        torch.save({"state_dict": {"encoder.conv_in.weight": torch.zeros(1)}}, other)
        message = run("beitv2", other)
        assert (
            f"{other}: beitv2 weights: expected the tensors of BEiT v2's VQ-KD, got none named quant"
            in message
        )
        assert "but encoder.conv_in.weight; check which project wrote the weights" in message
        assert not other.with_name("last.ckpt.converted").exists()

    def test_a_tensor_without_counterpart(self, state: dict[str, Tensor]) -> None:
        with pytest.raises(InteropError, match=r"1 with no counterpart \(encoder.blocks.0.gamma_1\)"):
            from_beitv2(state | {"encoder.blocks.0.gamma_1": torch.zeros(4)})
        del state["decoder.pos_embed"]
        with pytest.raises(InteropError, match=r"1 with no counterpart \(decoder.cls_token\)"):
            from_beitv2(state)

    def test_a_tensor_that_is_missing(self, state: dict[str, Tensor]) -> None:
        tokenizer = build(describe_beitv2(state, with_decoder=True), path="tokenizer")
        before = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
        del state["encoder.blocks.1.attn.q_bias"]
        message = r"got 1 missing: encoder.transformer.blocks.1.query.bias; use the config whose depth"
        with pytest.raises(InteropError, match=message):
            from_dialect(tokenizer, state, "beitv2")
        assert all(torch.equal(tensor, before[name]) for name, tensor in tokenizer.state_dict().items())

    def test_a_decoder_that_is_not_there(self, state: dict[str, Tensor]) -> None:
        kept = {n: t for n, t in state.items() if not n.startswith("decode")}
        describe_beitv2(kept, with_decoder=False)
        with pytest.raises(
            InteropError, match=r"got none named decoder.patch_embed.* that with_decoder:True asks for"
        ):
            describe_beitv2(kept, with_decoder=True)

    def test_codes_before_their_initialization(self, state: dict[str, Tensor]) -> None:
        state["quantize.embedding.weight"].zero_()
        with pytest.raises(
            InteropError, match="expected codes of length 1, got lengths from 0 to 0; the file was"
        ):
            from_beitv2(state)

    @pytest.mark.parametrize(
        ("name", "shape", "got"),
        [
            ("encoder.patch_embed.proj.weight", (128, 192), r"4 axes .* got the shape \(128, 192\)"),
            ("encoder.blocks.1.attn.qkv.weight", (384,), "2 axes"),
            (
                "encoder.blocks.1.attn.qkv.weight",
                (383, 128),
                r"blocks.1.value.weight \(127, 128\) for \(128, 128\)",
            ),
            ("encoder.cls_token", (1, 2, 128), r"cls_token of shape .* got \(1, 2, 128\) and \(1, 17, 128\)"),
            ("encoder.cls_token", (1, 1, 0), "3 axes and at least one number"),
            ("quantize.embedding.weight", (64,), "2 axes"),
            ("encoder.blocks.0.mlp.fc1.weight", (), "2 axes"),
        ],
    )
    def test_shapes(self, state: dict[str, Tensor], name: str, shape: tuple[int, ...], got: str) -> None:
        tokenizer = build(describe_beitv2(state, with_decoder=False), path="tokenizer")
        with pytest.raises(InteropError, match=got):
            from_dialect(tokenizer, state | {name: torch.ones(shape)}, "beitv2")

    def test_heads_of_another_width(self, state: dict[str, Tensor]) -> None:
        state["encoder.patch_embed.proj.weight"] = torch.zeros(96, 3, 8, 8)
        with pytest.raises(
            InteropError, match="expected the encoder to have attention heads of 64 channels, got 96"
        ):
            describe_beitv2(state, with_decoder=False)

    def test_positions_of_no_square_grid(self, state: dict[str, Tensor]) -> None:
        state["encoder.pos_embed"] = state["encoder.pos_embed"][:, :-1]
        with pytest.raises(
            InteropError, match=r"expected encoder.pos_embed to have a position for .*, got 16 pos"
        ):
            from_beitv2(state)

    @pytest.mark.parametrize(
        ("changes", "got"),
        [
            ({"heads": 4}, "PixelPatches, SoftmaxAttention and 4"),
            ({"attention": LinearAttention()}, "PixelPatches, LinearAttention and 2"),
            (
                {"attention": SoftmaxAttention(causal=True)},
                r"PixelPatches, SoftmaxAttention\(causal=True\) and 2",
            ),
        ],
    )
    def test_a_network_that_computes_something_else(
        self, state: dict[str, Tensor], changes: dict[str, object], got: str
    ) -> None:
        tokenizer = build(describe_beitv2(state, with_decoder=False), path="tokenizer")
        from_dialect(tokenizer, state, "beitv2")
        tokenizer.encoder.transformer = network(**changes)
        message = rf"expected PixelPatches, SoftmaxAttention\(\) and 2 heads in the encoder, got {got}"
        with pytest.raises(InteropError, match=message):
            from_dialect(tokenizer, state, "beitv2")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ["taming", "F", "--options", "with_decoder:True"],
                "--options: taming weights: expected options among ",
            ),
            (
                ["beitv2", "F", "--options", "with_decoder:1"],
                "--options: beitv2 weights: expected with_decoder to be a bool, got 1",
            ),
            (
                ["beitv2", "F", "--options", "decoder:True"],
                "expected options among with_decoder, got 'decoder'",
            ),
            (
                ["beitv2", "F", "--config", "P", "--options", "with_decoder:True"],
                "--options: expected none with --c",
            ),
            (["beitv2", "F", "--suffix", ""], "--suffix: expected the end of a file name, got ''"),
            (
                ["beitv2", "F.safetensors", "--out", "F.safetensors"],
                "--out: expected another file than the one to",
            ),
            (["beitv2", "F", "--out", "G.safetensors", "--suffix", ".x"], "not allowed with argument"),
        ],
    )
    def test_arguments(self, words: list[str], message: str) -> None:
        assert message in run(*words)

    def test_a_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        assert run("beitv2", ".").startswith(
            ".: expected a weight file, or a folder with one of diffusion_pytorch_"
        )
