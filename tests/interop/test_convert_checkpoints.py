"""The converter of checkpoints: from the files of other projects to files that `vq.load` reads."""

import argparse
import pickle
from pathlib import Path

import pytest
import torch
from commands import accepted
from safetensors.torch import save_file
from torch import Tensor

import vq
from tools.convert_checkpoints import main
from vq.config import load
from vq.engine.assembly.build import make_tokenizer
from vq.errors import UserError
from vq.interop import to_diffusers, to_llamagen, to_taming
from vq.pretrained import IGNORED
from vq.tokenizers.checkpoint import read_weights

PAGE = Path(__file__).with_name("page_taming.py")
IMAGE = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(load(PAGE).to_dict(), seed=7).eval()


@pytest.fixture
def state(tokenizer) -> dict[str, Tensor]:
    return to_taming(tokenizer.state_dict())


def run(dialect: str, file: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        main([dialect, str(file), "--config", str(PAGE), "--out", str(out)])
    except UserError as error:
        return 2, str(error)
    return 0, capsys.readouterr().out


def test_a_pickle_of_taming(tokenizer, state, tmp_path, capsys):
    file, out = tmp_path / "last.ckpt", tmp_path / "made" / "vqgan.safetensors"
    torch.save({"state_dict": state | {"loss.logvar": torch.zeros(())}, "epoch": 3, "global_step": 10}, file)
    status, said = run("taming", file, out, capsys)
    assert (status, said.split(":")[0]) == (0, str(out))
    assert f"{len(state) + 1} tensors of last.ckpt read" in said
    loaded = vq.load(out)
    assert torch.equal(loaded.encode(IMAGE), tokenizer.encode(IMAGE))
    assert torch.equal(loaded(IMAGE).reconstruction, tokenizer(IMAGE).reconstruction)
    assert read_weights(out)[1]["tokenizer"]["encoder"]["base_width"] == 128


def test_safetensors_of_diffusers(tokenizer, tmp_path, capsys):
    file, out = tmp_path / "diffusion_pytorch_model.safetensors", tmp_path / "out.safetensors"
    theirs = to_diffusers(tokenizer.state_dict())
    save_file({n: t.contiguous() for n, t in theirs.items()}, file)
    assert run("diffusers", file, out, capsys)[0] == 0
    assert torch.equal(vq.load(out).encode(IMAGE), tokenizer.encode(IMAGE))


def test_training_state_beside_the_weights_is_passed_over(state, tmp_path, capsys):
    file, out = tmp_path / "run.pt", tmp_path / "out.safetensors"
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-4, name="run"), "steps": 3}, file)
    assert run("taming", file, out, capsys)[0] == 0
    assert "argparse.Namespace" in IGNORED


class Dangerous:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_a_pickle_is_not_trusted(state, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, out = tmp_path / "bad.ckpt", tmp_path / "out.safetensors"
    torch.save({"state_dict": state, "callbacks": Dangerous()}, file)
    status, said = run("taming", file, out, capsys)
    assert status == 2
    assert "torch refuses it as plain tensors" in said
    assert not out.exists()
    assert not Path("touched").exists()
    pickle.loads(pickle.dumps(Dangerous()))  # the test can fail: an unrestricted reader runs the code
    assert Path("touched").exists()


def test_weights_of_another_page(state, tmp_path, capsys):
    file, out = tmp_path / "other.safetensors", tmp_path / "out.safetensors"
    del state["quantize.embedding.weight"]
    save_file(state | {"decoder.up.0.attn.0.q.weight": torch.zeros(128, 128, 1, 1)}, file)
    status, said = run("taming", file, out, capsys)
    assert status == 2
    assert f"{file} with {PAGE}: taming weights: " in said
    assert "left over: " in said
    assert "quantizer.codebook.weight" in said.split("missing: ")[1]
    assert not out.exists()


def test_the_wrong_dialect(tokenizer, tmp_path, capsys):
    file = tmp_path / "vq_ds16.pt"
    torch.save({"model": to_llamagen(tokenizer.state_dict())}, file)
    status, said = run("taming", file, tmp_path / "out.safetensors", capsys)
    assert status == 2
    assert "with no counterpart (encoder.conv_blocks.0.res.0.norm1.weight" in said


def test_what_else_is_refused(tmp_path, capsys):
    status, said = run("taming", tmp_path / "absent.ckpt", tmp_path / "out.safetensors", capsys)
    assert (status, "absent.ckpt" in said) == (2, True)
    status, said = run("taming", tmp_path / "absent.ckpt", tmp_path / "out.pt", capsys)
    assert (status, "--out: expected a name that ends in .safetensors" in said) == (2, True)


def test_the_decoder_of_converted_weights_can_be_fine_tuned(tokenizer, state, tmp_path, capsys, monkeypatch):
    """As configs/decoder/finetune.py does it, with small data: the decoder moves, and no index changes."""
    file, out = tmp_path / "last.ckpt", tmp_path / "converted.safetensors"
    torch.save({"state_dict": state}, file)
    run("taming", file, out, capsys)
    monkeypatch.chdir(tmp_path)
    images = "dataset=dict(type='vq.data.ProceduralDataset', num_images=8, image_size=32)"
    data = f"dict(type='vq.data.ImageLoader', {images}, "
    accepted(
        "train", "tuned", "decoder/finetune",
        "--config-options", f"it_state_dict::{out}", "max_steps:2", "image_size:32",
        "--override", f".train_data:{data}batch_size=4)", f".val_data:{data}batch_size=4, shuffle=False)",
        ".train_step.losses:dict(l1=dict(type='vq.losses.L1Loss'))",
        ".train_step.weights:dict(l1=1.0, quantizer=1.0, adversarial=0.75)",
        ".train_step.adversary.discriminator.base_width:8",
        ".evaluator.metrics:[dict(type='vq.metrics.PSNR')]",
    )  # fmt: skip
    tuned = vq.load("work_dirs/tuned")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(tuned.encode(images), tokenizer.encode(images))
    before, after = tokenizer.state_dict(), tuned.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith(("decoder.", "post_quant."))}
