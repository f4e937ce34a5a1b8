"""Weight files: self-describing, free of pickle, and refused when they are something else."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vq
from vq.errors import ConfigError
from vq.quantizers import FiniteScalarQuantizer
from vq.registry import build
from vq.tokenizers import ImageTokenizer
from vq.tokenizers.checkpoint import CheckpointError, find_weights, load_weights, read_weights, save_weights

NETWORK = {"widths": [4, 8], "num_blocks": 1}
CONFIG = {
    "tokenizer": {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.StridedCNNEncoder", **NETWORK},
        "quantizer": {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [5, 5]},
        "decoder": {"type": "vq.networks.StridedCNNDecoder", **NETWORK},
    }
}


@pytest.fixture
def tokenizer() -> ImageTokenizer:
    return build(CONFIG["tokenizer"], path="tokenizer")


def test_a_file_is_enough(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    save_weights(tokenizer.state_dict(), tmp_path / "model.safetensors", CONFIG)
    loaded = vq.load(tmp_path / "model.safetensors")
    image = torch.rand(2, 3, 16, 24) * 2 - 1
    indices = tokenizer.eval().encode(image)
    assert indices.shape == (2, 4, 6)
    assert torch.equal(loaded.encode(image), indices)
    assert torch.equal(loaded.decode(indices), tokenizer.decode(indices))
    assert isinstance(loaded.quantizer, FiniteScalarQuantizer)
    reconstruction = tokenizer(image).reconstruction.clamp(-1, 1)
    torch.testing.assert_close(loaded.decode(indices), reconstruction, atol=1e-6, rtol=1e-6)


def test_a_malicious_pickle_is_not_executed(tmp_path: Path, tokenizer: ImageTokenizer) -> None:
    class Bomb:
        def __reduce__(self) -> object:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"model": Bomb()}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="torch refuses it as plain tensors"):
        load_weights(tokenizer, [tmp_path / "model.pth"])
    assert not (tmp_path / "executed").exists()


def test_a_config_inside_a_file_may_not_name_other_code(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    evil = {"tokenizer": {"type": "os.system", "command": f"touch {tmp_path / 'executed'}"}}
    save_weights(tokenizer.state_dict(), tmp_path / "model.safetensors", evil)
    with pytest.raises(ConfigError, match=r"os.system is not a class of vq"):
        vq.load(tmp_path / "model.safetensors")
    assert not (tmp_path / "executed").exists()


def test_plain_torch_files_are_read(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    torch.save({"state_dict": tokenizer.state_dict(), "epoch": 3}, tmp_path / "last.ckpt")
    other = build(CONFIG["tokenizer"], path="tokenizer")
    load_weights(other, [tmp_path / "last.ckpt"])
    assert all(torch.equal(a, b) for a, b in zip(tokenizer.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("post_quant.bias"), r"1 missing \(post_quant.bias\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (lambda s: s.update({"post_quant.bias": torch.zeros(3)}), r"the file has \(3,\), the model \(8,\)"),
    ],
)
def test_other_weights_are_refused_by_name(
    tokenizer: ImageTokenizer, tmp_path: Path, change, message
) -> None:
    state = dict(tokenizer.state_dict())
    change(state)
    save_weights(state, tmp_path / "w.safetensors", CONFIG)
    before = {n: t.clone() for n, t in tokenizer.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_weights(tokenizer, [tmp_path / "w.safetensors"])
    assert all(torch.equal(t, before[n]) for n, t in tokenizer.state_dict().items())  # nothing half-loaded


def test_later_files_win(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    save_weights(tokenizer.state_dict(), tmp_path / "a.safetensors", CONFIG)
    save_file({"post_quant.bias": torch.full((8,), 7.0)}, tmp_path / "b.safetensors")
    load_weights(tokenizer, [tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert tokenizer.post_quant.bias.eq(7).all()


def test_what_cannot_be_found_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="there is no such file or folder"):
        find_weights(tmp_path / "nothing")
    (tmp_path / "work_dirs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"mine: there is no such .*; did you mean work_dirs/mine\?"):
        find_weights("mine")
    (tmp_path / "work_dirs" / "mine").rmdir()
    (tmp_path / "work_dirs").rmdir()
    with pytest.raises(
        CheckpointError, match="expected a checkpoint or a run folder with one; it holds nothing"
    ):
        find_weights(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    with pytest.raises(CheckpointError, match="damaged, or not a safetensors file"):
        read_weights(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(CheckpointError, match="has no config"):
        vq.load(tmp_path / "y.safetensors")


def test_metadata_is_json(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    save_weights(tokenizer.state_dict(), tmp_path / "w.safetensors", CONFIG)
    _, config = read_weights(tmp_path / "w.safetensors")
    assert config == json.loads(json.dumps(CONFIG))


def test_others_may_read_a_file_as_any_other_new_file(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    """`save_file` of safetensors 0.8 lets only its owner read a file, whatever the umask says."""
    (tmp_path / "plain").touch()
    save_weights(tokenizer.state_dict(), tmp_path / "w.safetensors", CONFIG)
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_is_recognised_by_its_content(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    """The name of a converted file ends in `.converted`, not in `.safetensors`."""
    file = tmp_path / "theirs.pth.converted"
    save_weights(tokenizer.state_dict(), file, CONFIG)
    assert vq.load(file).state_dict().keys() == tokenizer.state_dict().keys()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"theirs.pth.converted: damaged, or not a safetensors file"):
        vq.load(file)
    torch.save(tokenizer.state_dict(), file)  # and a file of torch is not mistaken for one
    assert read_weights(file)[0].keys() == tokenizer.state_dict().keys()


def test_networks_of_different_stride_are_refused() -> None:
    node = {**CONFIG["tokenizer"], "decoder": {"type": "vq.networks.StridedCNNDecoder", "widths": [4, 8, 8]}}
    with pytest.raises(
        ConfigError, match="the encoder's downsampling factor is 4 and the decoder's upsampling factor 8"
    ):
        build(node, path="tokenizer")
