"""Exported tokenizers: one of each format, what is refused, and the example of docs/export.md without torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT
from PIL import Image

import vq
from vq import export
from vq.exporting import FORMATS, Export, Exported, ExportError, formats
from vq.exporting.checking import compare_images, compare_indices
from vq.exporting.graphs import nearest_code_at_once
from vq.files import write_atomically
from vq.networks import CNNDecoder, CNNEncoder
from vq.ops.distance import largest_product, nearest_code
from vq.quantizers import LearnedCodebook, Quantizer, VectorQuantizer
from vq.registry import build
from vq.tokenizers import FeatureTokenizer, ImageTokenizer
from vq.tokenizers.checkpoint import read_config, save_weights

NETWORK = {"base_width": 8, "multipliers": [1, 1], "num_blocks": 1, "attention": False}


def tokenizer_with(quantizer: Quantizer) -> ImageTokenizer:
    return ImageTokenizer(
        encoder=CNNEncoder(out_channels=8, **NETWORK),
        quantizer=quantizer,
        decoder=CNNDecoder(in_channels=8, **NETWORK),
    )


def small() -> ImageTokenizer:
    torch.manual_seed(0)
    return tokenizer_with(VectorQuantizer(codebook=LearnedCodebook(size=64, dim=4)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file, as a checkpoint has it."""
    node = {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.CNNEncoder", "out_channels": 8, **NETWORK},
        "quantizer": {
            "type": "vq.quantizers.VectorQuantizer",
            "codebook": {"type": "vq.quantizers.LearnedCodebook", "size": 64, "dim": 4},
        },
        "decoder": {"type": "vq.networks.CNNDecoder", "in_channels": 8, **NETWORK},
    }
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(build(node, path="tokenizer").state_dict(), path, {"tokenizer": node})
    return path


@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.slow if name == "onnx" else ()) for name in FORMATS]
)
def test_a_file_computes_what_the_tokenizer_computes(target: str, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export.main([str(weights), "--to", target, "--out", str(out), "--size", "16"])
    assert [file.path.stem for file in done] == ["encode", "decode"]
    assert {file.path for file in done} == set(out.iterdir())
    tokenizer = vq.load(weights)
    encode, decode = (FORMATS[target].load(file.path) for file in done)
    for batch in (1, 4):  # the traced batch was another one
        image = torch.rand(batch, 3, 16, 16) * 2 - 1
        indices = tokenizer.encode(image)
        assert torch.equal(encode(image), indices)
        torch.testing.assert_close(decode(indices), tokenizer.decode(indices), atol=1e-4, rtol=0)
    for file in done:
        assert "verified with" in file.verified
        assert "batch 1: " in file.verified
        assert "batch 3: " in file.verified


def test_a_fixed_batch_and_one_function(tmp_path: Path) -> None:
    (done,) = Export(target="exported_program", size=16, fixed_batch=2).write(
        small(), ["encode"], tmp_path / "out"
    )
    run = FORMATS["exported_program"].load(done.path)
    assert run(torch.zeros(2, 3, 16, 16)).shape == (2, 8, 8)
    with pytest.raises(Exception, match=r"2|shape|guard"):
        run(torch.zeros(3, 3, 16, 16))


def test_other_precisions_become_float32_and_the_command_says_so(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_config(weights)
    assert config is not None
    file = tmp_path / "half.safetensors"
    save_weights(vq.load(weights).half().state_dict(), file, config)
    (done,) = export.main(
        [str(file), "--to", "torchscript", "--encode", "--size", "16", "--out", f"{tmp_path}/1"]
    )
    said = f"{file}: has weights in float16; the exported files have them in float32"
    assert said in capsys.readouterr().out
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(FORMATS["torchscript"].load(done.path)(image), vq.load(file).encode(image))
    (done,) = Export(target="torchscript", size=16).write(small().half(), ["decode"], tmp_path / "out")
    run = FORMATS["torchscript"].load(done.path)
    assert run(torch.zeros(1, 8, 8, dtype=torch.int64)).dtype == torch.float32


def test_a_run_is_found_by_its_name(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "work_dirs" / "emoji"
    run.mkdir(parents=True)
    write_atomically(run / "model.safetensors", weights.read_bytes())
    write_atomically(run / "config.json", "{}")
    done = export.main(["emoji", "--to", "torchscript", "--decode", "--size", "16"])
    assert [file.path for file in done] == [Path("work_dirs/export/emoji/torchscript/decode.torchscript")]
    with pytest.raises(vq.errors.UserError, match="holds files, which are not overwritten"):
        export.main(["emoji", "--to", "torchscript", "--decode", "--size", "16"])
    with pytest.raises(vq.errors.UserError, match="no such run, folder or file; did you mean"):
        export.main(["emojo", "--to", "torchscript"])


def test_sizes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"downsampling factor 2, got 15x15; try 16"):
        Export(target="torchscript", size=15).write(small(), ["encode"], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(vq.quantizers.IdentityQuantizer(dim=4))
    with pytest.raises(ExportError, match=r"encode: PyTorch .* cannot export this tokenizer to torchscript"):
        Export(target="torchscript", size=16).write(tokenizer, ["encode"], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_refused() -> None:
    tokenizer = small().eval()
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    indices = tokenizer.encode(image)
    assert compare_indices(tokenizer, image, indices) == "128 of 128 indices are equal"
    wrong = indices.clone()
    wrong[0, 0, 0] = (wrong[0, 0, 0] + 1) % 64
    with pytest.raises(ExportError, match="1 of 128 indices of random images differ"):
        compare_indices(tokenizer, image, wrong)
    with pytest.raises(ExportError, match=r"expected indices of torch\.int64"):
        compare_indices(tokenizer, image, indices.int())
    shown = tokenizer.decode(indices)
    assert compare_images(tokenizer, indices, shown) == "images differ by at most 0.0e+00"
    with pytest.raises(ExportError, match=r"by up to 1\.0e-03"):
        compare_images(tokenizer, indices, shown + 1e-3)
    with pytest.raises(ExportError, match="by up to nan"):
        compare_images(tokenizer, indices, shown * torch.nan)


def test_ties_within_rounding_are_counted_and_not_refused() -> None:
    tokenizer = small().eval()
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    latent = tokenizer.latent(image)[0, 0, 0].detach()
    offset = torch.tensor([0.1, 0.0, 0.0, 0.0])
    tokenizer.quantizer.codebook.vectors.data[:2] = torch.stack([latent - offset, latent + offset])
    indices = tokenizer.encode(image)
    other = indices.clone()
    assert int(indices[0, 0, 0]) in (0, 1)
    other[0, 0, 0] = 1 - other[0, 0, 0]
    assert compare_indices(tokenizer, image, other) == (
        "127 of 128 indices are equal; 1 differ where rounding decides between two codes"
    )


@pytest.mark.parametrize("by_distance", [True, False])
def test_the_search_at_once_is_the_streamed_one(by_distance: bool) -> None:
    z, codes = torch.randn(500, 4), torch.randn(300, 4) + 3
    codes[7] = codes[3]
    streamed = nearest_code if by_distance else largest_product
    assert torch.equal(nearest_code_at_once(z, codes, by_distance), streamed(z, codes))


def test_the_command_knows_the_formats() -> None:
    assert tuple(FORMATS) == export.TARGETS


def test_the_example_of_the_documentation_runs_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the weights are beyond the limit of one file and written beside it."""
    monkeypatch.setattr(formats, "LARGEST_FILE", 100)
    out = tmp_path / "work_dirs/export/emoji/onnx"
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.S)[0]
    tokenizer = small()
    Export(target="onnx", size=32).write(tokenizer, ["encode", "decode"], out)
    names = ("encode.onnx", "encode.onnx.data", "decode.onnx", "decode.onnx.data")
    assert {path.name for path in out.iterdir()} == set(names)
    Image.effect_noise((300, 280), 60).convert("RGB").save(tmp_path / "cat.png")
    blocked = "import sys\nsys.modules['torch'] = sys.modules['vq'] = None\n"
    subprocess.run(
        [sys.executable, "-c", blocked + code],
        cwd=tmp_path,
        env=dict(os.environ),
        check=True,
        capture_output=True,
    )
    shown = np.asarray(Image.open(tmp_path / "reconstruction.png"))
    pixels = np.asarray(Image.open(tmp_path / "cat.png").resize((32, 32)), dtype=np.float32)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    ours = tokenizer.decode(tokenizer.encode(image))[0].permute(1, 2, 0)
    expected = ((ours + 1) * 127.5).round().numpy()
    assert np.abs(shown.astype(int) - expected).max() <= 1


def test_a_tokenizer_without_an_image_decoder_exports_encode_only(tmp_path: Path) -> None:
    tokenizer = FeatureTokenizer(
        encoder=CNNEncoder(out_channels=4, **NETWORK),
        quantizer=VectorQuantizer(codebook=LearnedCodebook(size=16, dim=4)),
    )
    export_it = Export(target="exported_program", size=16)
    with pytest.raises(ExportError, match="has no image decoder; export it with --encode only"):
        export_it.write(tokenizer, ["decode"], tmp_path / "out")
    (done,) = export_it.write(tokenizer, ["encode"], tmp_path / "out")
    assert isinstance(done, Exported)
    assert "indices are equal" in done.verified
