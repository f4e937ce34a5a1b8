"""Tokenizers on the hub: a server on this machine speaks the endpoints that are used, and real processes ask it.

The client of the hub reads its settings when it is imported, so each test runs its program in a process of its own.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from model_hub import ModelHub, serving

import vq
from vq.interop import to_llamagen
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import FiniteScalarQuantizer
from vq.registry import build
from vq.tokenizers import ImageTokenizer
from vq.tokenizers.checkpoint import CheckpointError, save_weights
from vq.tokenizers.hub import HubError, model_card, pull
from vq.zoo.vqgan import vqgan

CONFIG = {
    "tokenizer": {
        "type": "ImageTokenizer",
        "encoder": {"type": "StridedCNNEncoder", "widths": [8], "num_blocks": 1},
        "quantizer": {"type": "FiniteScalarQuantizer", "levels": [5, 5]},
        "decoder": {"type": "StridedCNNDecoder", "widths": [8], "num_blocks": 1},
    },
    "train_data": {"root": "/home/somebody/pictures"},
}
LOAD = """
import sys, vq
from vq import failures
with failures.reported():
    for address in sys.argv[1:]:
        print(vq.load(address).encode(__import__("torch").zeros(1, 3, 8, 8)).sum().item())
"""
LOAD_EACH = """
import sys, vq, vq.errors
for address in sys.argv[1:]:
    try:
        vq.load(address)
    except vq.errors.UserError as error:
        print("error:", error)
"""
PUSH = """
import sys, vq
from vq import failures
with failures.reported():
    print(vq.load(sys.argv[1]).push_to_hub(sys.argv[2], licence="mit", scores=sys.argv[3]))
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8,), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[5, 5]),
        decoder=StridedCNNDecoder(widths=(8,), num_blocks=1),
    )
    file = tmp_path / "own" / "model.safetensors"
    file.parent.mkdir()
    save_weights(tokenizer.state_dict(), file, CONFIG)
    return file


@pytest.fixture
def server() -> Iterator[ModelHub]:
    with serving() as found:
        yield found


def run(
    program: str, server: ModelHub, folder: Path, *words: object, token: str = "hf_token"
) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env={
            **os.environ,
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(folder / "hub"),
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_pushed_and_loaded(weights: Path, server: ModelHub, tmp_path: Path) -> None:
    scores = tmp_path / "metrics.json"
    scores.write_text(json.dumps({"scores": {"psnr": 20.5}, "stamp": {"psnr": {"size": "256 px"}}}))
    status, said = run(PUSH, server, tmp_path, weights, "user/tiny", scores)
    assert status == 0, said
    (commit,) = server.files["user/tiny"]
    assert said.strip().endswith(f"hf://user/tiny@{commit}")
    files = server.files["user/tiny"][commit]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert b"| psnr | 20.5 | size 256 px |" in files["README.md"]
    assert b"license: mit" in files["README.md"]
    assert not any(
        b"somebody" in content for content in files.values()
    )  # no path of this machine is published
    assert files["model.safetensors"] == _without_data(weights)
    status, said = run(LOAD, server, tmp_path, "hf://user/tiny", f"hf://user/tiny@{commit}")
    expected = vq.load(weights).encode(torch.zeros(1, 3, 8, 8)).sum().item()
    assert (status, said.split()) == (0, [str(expected)] * 2)


def _without_data(weights: Path) -> bytes:
    loaded = vq.load(weights)
    other = weights.with_name("tokenizer_only.safetensors")
    save_weights(loaded.state_dict(), other, {"tokenizer": CONFIG["tokenizer"]})
    return other.read_bytes()


def test_refused(weights: Path, server: ModelHub, tmp_path: Path) -> None:
    content = weights.read_bytes()
    server.files = {
        "user/tiny": {"a" * 40: {"model.safetensors": content}},
        "user/empty": {"b" * 40: {"pytorch_model.bin": b"1"}},
        "user/damaged": {"c" * 40: {"model.safetensors": content[:-4] + bytes(4)}},
    }
    server.closed = {"user/gated", "user/closed"}
    messages = {
        "hf://user/none": "there is no such repository, or it is private; `hf auth login` gives access to yours",
        "hf://user/gated": "access must be granted on the page of the repository first",
        "hf://user/closed": "access is refused; `hf auth login` gives access to what is yours",
        "hf://user/tiny@v2": "the repository has no such branch, tag or commit",
        "hf://user/empty": "expected a file model.safetensors, as push_to_hub writes it, got none",
        "hf://user/damaged": "damaged",
    }
    status, said = run(LOAD_EACH, server, tmp_path, *messages)
    assert status == 0, said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(messages)
    for line, (address, message) in zip(lines, messages.items(), strict=True):
        assert message in line
        assert address in line or message == "damaged"  # that names the file in the cache


def test_a_connection_that_is_cut(weights: Path, server: ModelHub, tmp_path: Path) -> None:
    server.files = {"user/tiny": {"a" * 40: {"model.safetensors": weights.read_bytes()}}}
    server.cuts = 1
    status, said = run(LOAD, server, tmp_path, "hf://user/tiny")
    if status:  # the client gave up; the next attempt continues
        assert "hf://user/tiny: " in said
        assert "Traceback" not in said
        status, said = run(LOAD, server, tmp_path, "hf://user/tiny")
    assert status == 0, said
    assert server.cuts == 0


def test_pushing_without_a_token(weights: Path, server: ModelHub, tmp_path: Path) -> None:
    scores = tmp_path / "metrics.json"
    scores.write_text('{"scores": {}}')
    status, said = run(PUSH, server, tmp_path, weights, "user/tiny", scores, token="hf_other")
    assert status == 2
    assert "hf://user/tiny: access is refused" in said
    assert "Traceback" not in said
    assert not server.files


@pytest.mark.parametrize("address", ["hf://tiny", "hf://user/tiny/file", "hf://user/tiny@", "hf://../etc"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(HubError, match="expected hf://OWNER/REPOSITORY"):
        pull(address)


def test_a_tokenizer_that_was_built_by_hand_has_no_config() -> None:
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8,), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[5, 5]),
        decoder=StridedCNNDecoder(widths=(8,), num_blocks=1),
    )
    with pytest.raises(
        CheckpointError, match="expected a tokenizer with a config, which says how it was built"
    ):
        tokenizer.push_to_hub("user/tiny", licence="mit")


def test_a_card_does_not_run_what_a_score_is_named() -> None:
    card = model_card("user/tiny", CONFIG, "mit", {"scores": {"<b>|psnr": 1.0}, "stamp": {}})
    assert "| &lt;b>\\|psnr | 1 |  |" in card


PUBLISHED = """
import sys, torch, vq, vq.errors
from vq import zoo
from vq.zoo.vqgan import vqgan

section = vqgan(multipliers=(1,), codes=16, dim=4, latent=8, num_blocks=1, attention=False, distance="CosineDistance")
for repository in sys.argv[1:]:
    model = zoo.Model(name="a", config={"tokenizer": section}, file="a.pt", address=f"hf://{repository}")
    zoo.FAMILIES["small"] = zoo.Family(
        name="small", title="Small", dialect="llamagen", paper="", repository="", licence="", value_range=(-1.0, 1.0),
        parity="recorded", models=(model,),
    )
    try:
        print(vq.load_pretrained("small/a").encode(torch.zeros(1, 3, 8, 8)).sum().item())
    except vq.errors.UserError as error:
        print(error)
"""


def test_a_published_model_is_downloaded(
    server: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQ_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    narrow = {"multipliers": (1,), "latent": 8, "num_blocks": 1, "attention": False}
    tokenizer = build(vqgan(codes=16, dim=4, distance="CosineDistance", **narrow), path="tokenizer").eval()
    content = io.BytesIO()
    torch.save({"model": to_llamagen(tokenizer.state_dict())}, content)
    server.files = {
        "user/other": {"b" * 40: {"b.pt": b"1"}},
        "user/models": {"a" * 40: {"a.pt": content.getvalue()}},
    }
    status, said = run(PUBLISHED, server, tmp_path, "user/other", "user/models")
    assert status == 0, said
    expected = tokenizer.encode(torch.zeros(1, 3, 8, 8)).sum().item()
    assert said.splitlines() == ["hf://user/other: expected a file a.pt, got none", str(expected)]


@pytest.mark.parametrize(
    ("repository", "arguments", "words"),
    [
        ("tiny", {}, "expected OWNER/REPOSITORY, got 'tiny'"),
        ("user/tiny@v1", {}, "expected OWNER/REPOSITORY, got 'user/tiny@v1'"),
        ("user/tiny", {"licence": "mit\nextra: 1"}, "expected a licence such as mit, apache-2.0 or other"),
        ("user/tiny", {"scores": "none.json"}, "scores: none.json: "),
        ("user/tiny", {"scores": "list.json"}, "expected a metrics.json that `vq val` or `vq test` wrote"),
    ],
)
def test_what_cannot_be_pushed(
    weights: Path, monkeypatch: pytest.MonkeyPatch, repository: str, arguments: dict[str, str], words: str
) -> None:
    monkeypatch.chdir(weights.parent)
    Path("list.json").write_text("[]")
    with pytest.raises(HubError, match=words):
        vq.load(weights).push_to_hub(repository, **{"licence": "mit", **arguments})
