"""Published weights: found, converted once, refused if they are not those of their name."""

import dataclasses
import functools
import hashlib
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import vq
from vq import zoo
from vq.errors import UserError
from vq.generate import main as generate
from vq.inference import main as inference
from vq.interop import to_llamagen, to_taming
from vq.registry import build
from vq.tokenizers import Tokenizer
from vq.tokenizers.checkpoint import find_weights, save_weights
from vq.tokenizers.published import PublishedWeightsError, converted
from vq.weights import main as weights
from vq.zoo.vqgan import vqgan

IMAGE = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
NARROW = {"multipliers": (1,), "latent": 8, "num_blocks": 1, "attention": False}
"""128 channels, the fewest with which all projects agree on the groups of a norm."""


def entry(name: str, *, codes: int, dim: int = 4, sha256: str | None = None) -> zoo.Model:
    section = vqgan(codes=codes, dim=dim, distance="CosineDistance", **NARROW)
    return zoo.Model(
        name=name,
        config={"tokenizer": section},
        file=f"{name}.pt",
        address="hf://owner/models",
        sha256=sha256,
    )


@pytest.fixture(autouse=True)
def catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A catalogue of one family with three small models, and empty folders."""
    family = zoo.Family(
        name="small",
        title="Small",
        dialect="llamagen",
        paper="https://example.org",
        repository="owner/models",
        licence="MIT",
        value_range=(-1.0, 1.0),
        parity="recorded",
        models=(entry("a", codes=16), entry("b", codes=32), entry("c", codes=16, dim=6)),
    )
    monkeypatch.setattr(zoo, "FAMILIES", {"small": family})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    made: Tokenizer = build(zoo.find("small/a")[1].config["tokenizer"], path="tokenizer")
    return made.eval()


@pytest.fixture
def state(tokenizer: Tokenizer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in to_llamagen(tokenizer.state_dict()).items()}


def put(state: dict[str, Tensor], file: str = "pretrained/small/a.pt") -> Path:
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state}, path)
    return path


def test_a_file_placed_by_hand(tokenizer: Tokenizer, state: dict[str, Tensor]) -> None:
    put(state)
    assert vq.list_pretrained() == ["small/a", "small/b", "small/c"]
    assert vq.list_pretrained("*/[bc]") == ["small/b", "small/c"]
    for loaded in (
        vq.load("zoo:small/a"),
        vq.load_pretrained("small/a"),
        vq.load(find_weights("zoo:small/a")),
    ):
        assert torch.equal(loaded.encode(IMAGE), tokenizer.encode(IMAGE))
        assert torch.equal(loaded.decode(loaded.encode(IMAGE)), tokenizer.decode(tokenizer.encode(IMAGE)))


@pytest.mark.parametrize(
    "place",
    [
        "pretrained/small/a/a.pt",
        "cache/zoo/small/a.pt",
        "cache/zoo/small/a/a.pt",
        "torch/hub/checkpoints/a.pt",
    ],
)
def test_other_places(tokenizer: Tokenizer, state: dict[str, Tensor], place: str) -> None:
    put(state, place)
    assert torch.equal(vq.load("zoo:small/a").encode(IMAGE), tokenizer.encode(IMAGE))


def test_the_cache_of_the_hub(
    tokenizer: Tokenizer, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    file = put(state, "hub/a.pt")
    folder = Path("hub/models--owner--models")
    commit = "a" * 40
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    file.rename(folder / "snapshots" / commit / "a.pt")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "hub")
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", "hub")
    assert torch.equal(vq.load("zoo:small/a").encode(IMAGE), tokenizer.encode(IMAGE))


def test_a_file_is_converted_once_and_again_when_it_is_another(state: dict[str, Tensor]) -> None:
    source = put(state)
    file = converted("zoo:small/a")
    written = file.stat().st_mtime_ns
    assert converted("zoo:small/a").stat().st_mtime_ns == written
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    put({name: tensor + 1 for name, tensor in state.items()})
    message = r"expected the sha256 .* of the file that was used first \(.*a.json\), got .*; download the file again"
    with pytest.raises(PublishedWeightsError, match=message):
        converted("zoo:small/a")
    file.with_suffix(".json").unlink()
    assert converted("zoo:small/a").stat().st_mtime_ns != written


def test_a_file_is_converted_again_when_the_catalogue_describes_it_differently(
    state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state)
    file = converted("zoo:small/a")
    _, model = zoo.find("small/a")
    written = file.read_bytes()
    other = {"tokenizer": {**model.config["tokenizer"], "quantizer": {"type": "IdentityQuantizer"}}}
    save_weights(vq.load(file).state_dict(), file, other)  # as an earlier version might have described it
    assert converted("zoo:small/a").read_bytes() == written
    Path("pretrained/small/a.pt").unlink()
    assert converted("zoo:small/a").read_bytes() == written  # the converted file is enough
    save_weights(vq.load(file).state_dict(), file, other)
    with pytest.raises(PublishedWeightsError, match="is not on this machine"):
        converted("zoo:small/a")


def test_a_published_sha256(state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    found = hashlib.sha256(put(state).read_bytes()).hexdigest()
    family = zoo.FAMILIES["small"]
    for sha256, is_right in ((found, True), (found[:8], True), ("0" * 64, False)):
        model = entry("a", codes=16, sha256=sha256)
        monkeypatch.setattr(zoo, "find", lambda name, model=model: (family, model))
        for file in Path("cache").rglob("a.*"):
            file.unlink()
        if is_right:
            assert converted("zoo:small/a").is_file()
        else:
            with pytest.raises(
                PublishedWeightsError, match=r"expected the sha256 0+ that its publisher states"
            ):
                converted("zoo:small/a")


def test_the_file_of_another_model_names_the_two_nearest(state: dict[str, Tensor]) -> None:
    put(state, "pretrained/small/b.pt")
    with pytest.raises(PublishedWeightsError) as caught:
        vq.load("zoo:small/b")
    assert (
        "zoo:small/b: pretrained/small/b.pt: expected the weights of this model, got those of another"
        in str(caught.value)
    )
    assert str(caught.value).endswith("; the nearest published models are small/a and small/b")
    assert not list(Path("cache").rglob("*.safetensors"))


def test_the_file_of_another_project(tokenizer: Tokenizer) -> None:
    put({name: tensor.clone() for name, tensor in to_taming(tokenizer.state_dict()).items()})
    with pytest.raises(
        PublishedWeightsError, match=r"zoo:small/a: pretrained/small/a.pt: llamagen weights: "
    ):
        vq.load("zoo:small/a")


def test_a_file_that_is_half_there(state: dict[str, Tensor]) -> None:
    file = put(state)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(
        UserError, match=r"pretrained/small/a.pt: not a safetensors file, and torch refuses it"
    ):
        vq.load("zoo:small/a")
    save_file(state, "pretrained/small/a.pt")
    content = Path("pretrained/small/a.pt").read_bytes()
    Path("pretrained/small/a.pt").write_bytes(content[:-100])
    with pytest.raises(UserError, match=r"pretrained/small/a.pt: damaged, or not a safetensors file"):
        vq.load("zoo:small/a")
    assert not list(Path("cache").rglob("*.safetensors"))


class Dangerous:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_a_pickle_is_not_trusted(state: dict[str, Tensor]) -> None:
    file = put(state)
    torch.save({"model": state, "callbacks": Dangerous()}, file)
    with pytest.raises(UserError, match="torch refuses it as plain tensors"):
        vq.load("zoo:small/a")
    assert not Path("touched").exists()


def test_a_file_that_is_nowhere() -> None:
    message = (
        r"zoo:small/a: a.pt is not on this machine; `vq weights zoo:small/a` downloads it from hf://owner/models, or "
        r"put it at pretrained/small/a/a.pt"
    )
    with pytest.raises(PublishedWeightsError, match=message):
        vq.load("zoo:small/a")
    with pytest.raises(PublishedWeightsError, match=r"there is no file none.pt"):
        vq.load_pretrained("small/a", source="none.pt")
    with pytest.raises(
        UserError, match="small/aa: there is no published model of this name; did you mean 'small/a'"
    ):
        vq.load_pretrained("small/aa")


def test_a_converted_file_is_not_downloaded_again(tokenizer: Tokenizer, state: dict[str, Tensor]) -> None:
    source = put(state, "downloads/a.pt")
    vq.load_pretrained("small/a", source=source)
    source.unlink()
    assert torch.equal(vq.load_pretrained("small/a").encode(IMAGE), tokenizer.encode(IMAGE))
    assert weights(["zoo:small/a"]) == [converted("zoo:small/a")]


class Folder(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_file_with_an_address_is_downloaded(
    tokenizer: Tokenizer, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = put(state, "served/a.pt")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Folder, directory="served"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/a.pt"
    sha256 = hashlib.sha256(served.read_bytes()).hexdigest()
    family, model = zoo.FAMILIES["small"], entry("a", codes=16)

    def publish(sha256: str) -> None:
        published = dataclasses.replace(model, address=address, sha256=sha256)
        monkeypatch.setattr(zoo, "FAMILIES", {"small": dataclasses.replace(family, models=(published,))})

    with server:
        publish("0" * 64)
        with pytest.raises(UserError, match=f"expected sha256 0+ of {address}, got {sha256}"):
            vq.load_pretrained("small/a")
        publish(sha256)
        with pytest.raises(PublishedWeightsError, match=f"downloads it from {address}"):
            vq.load("zoo:small/a")  # does not download
        loaded = vq.load_pretrained("small/a")
        server.shutdown()
    assert torch.equal(loaded.encode(IMAGE), tokenizer.encode(IMAGE))
    assert Path("cache/zoo/small/a/a.pt").read_bytes() == served.read_bytes()
    assert torch.equal(vq.load("zoo:small/a").encode(IMAGE), tokenizer.encode(IMAGE))


def test_commands_take_the_name(state: dict[str, Tensor]) -> None:
    from vq.ops.images import save_png

    source = put(state, "downloads/a.pt")
    assert weights(["zoo:small/a", "--from", str(source)])[0].name == "a.safetensors"
    source.unlink()  # the converted file is enough
    save_png(torch.zeros(3, 16, 16, dtype=torch.uint8), Path("black.png"))
    written = inference(["zoo:small/a", "black.png", "--device", "cpu", "--out", "out"])
    assert {path.suffix for path in written} == {".png", ".npy"}
    with pytest.raises(
        UserError, match="zoo:small/a: expected a generator, got a tokenizer; use `vq inference`"
    ):
        generate(["zoo:small/a"])


@pytest.mark.slow
def test_scores_beside_the_published_ones(
    state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    from vq.test import main

    put(state)
    metrics = ".evaluator.metrics:[dict(type='vq.metrics.PSNR'), dict(type='vq.metrics.SSIM')]"
    words = [
        "--data",
        "photos",
        "--config-options",
        "image_size:16",
        "--override",
        metrics,
        "--device",
        "cpu",
    ]
    scores = main(["zoo:small/a", *words, "--expect"])
    assert set(scores) >= {"psnr", "ssim"}
    assert "a: no scores have been published, as far as the catalogue knows" in capsys.readouterr().out
    assert Path("work_dirs/zoo/small/a/photos/test/metrics.json").is_file()


def test_a_published_tokenizer_is_scored_as_it_is() -> None:
    from vq.test import main

    for changes in (
        ["--override", ".tokenizer.decoder.num_blocks:2"],
        ["--config-options", "it_state_dict::zoo:small/b"],
        ["--weights", "tokenizer=zoo:small/b"],
    ):
        with pytest.raises(
            UserError, match="expected the tokenizer as it was published, got options that change it"
        ):
            main(["zoo:small/a", "--data", "photos", *changes])
