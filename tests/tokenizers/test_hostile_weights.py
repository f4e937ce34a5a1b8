"""A weight file is data: whatever its metadata say, no code of its choosing runs, and one error says what is wrong."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import vq
from vq import config
from vq.errors import ConfigError, UserError
from vq.files import sha256_of
from vq.registry import build
from vq.tokenizers import pretrained_tokenizer
from vq.tokenizers.checkpoint import CheckpointError, load_weights, read_config, save_weights
from vq.tokenizers.pretrained import record_weights

NETWORK = {"widths": [2, 2], "num_blocks": 1}
TOKENIZER: dict[str, Any] = {
    "type": "vq.tokenizers.ImageTokenizer",
    "encoder": {"type": "vq.networks.StridedCNNEncoder", **NETWORK},
    "quantizer": {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [3, 3]},
    "decoder": {"type": "vq.networks.StridedCNNDecoder", **NETWORK},
}
PRETRAINED = "vq.tokenizers.pretrained_tokenizer"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "good.safetensors"
    save_weights(build(TOKENIZER, path="tokenizer").state_dict(), file, {"tokenizer": TOKENIZER})
    return file


def raw(path: Path, metadata: object, **others: str) -> Path:
    """A file of the first format, without a checksum: what an attacker writes needs none."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    save_file({"x": torch.zeros(1)}, path, metadata={"format": "vq-1", "config": text, **others})
    return path


def places() -> list[list[str]]:
    return [
        [],
        ["encoder"],
        ["quantizer"],
        ["decoder"],
        ["unknown"],
        ["quantizer", "codebook"],
        ["encoder", "a", "b"],
    ]


@pytest.mark.parametrize("ending", [".py", ".json"])
@pytest.mark.parametrize("place", places(), ids=".".join)
@pytest.mark.parametrize("section", ["tokenizer", "generator"])
def test_a_page_that_data_name_is_never_read(
    tmp_path: Path, weights: Path, ending: str, place: list[str], section: str
) -> None:
    proof, page = tmp_path / "proof", tmp_path / f"page{ending}"
    code = f"import pathlib\npathlib.Path({str(proof)!r}).touch()\n"
    tree = {"tokenizer": {"type": "os.mkdir", "path": str(proof)}}
    page.write_text(code if ending == ".py" else json.dumps(tree))
    evil: dict[str, Any] = {"type": PRETRAINED, "weights": [str(weights)], "config": str(page)}
    for key in reversed(place):
        evil = {**TOKENIZER, key: evil}
    with pytest.raises(UserError):
        vq.load(raw(tmp_path / "evil.safetensors", {section: evil}))
    (tmp_path / "config.json").write_text(json.dumps({section: evil}))
    with pytest.raises(UserError):
        build(config.load(tmp_path / "config.json")[section], path=section)
    # A trusted page that names such weights reads them as data.
    with pytest.raises(UserError):
        pretrained_tokenizer(weights=[str(tmp_path / "evil.safetensors")])
    assert not proof.exists()


def test_a_page_may_name_a_page_and_is_stored_as_data(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "it.py").write_text(f"tokenizer = {TOKENIZER!r}\n")
    (tmp_path / "it.json").write_text(json.dumps({"tokenizer": TOKENIZER}))
    for page in ("it.py", "it.json"):
        text = (
            "from vq.tokenizers import pretrained_tokenizer\n"
            f"tokenizer = dict(type=pretrained_tokenizer, weights=[{str(weights)!r}], "
            f"config={str(tmp_path / page)!r})\n"
        )
        (tmp_path / "page.py").write_text(text)
        loaded = config.load(tmp_path / "page.py")
        assert loaded.to_dict()["tokenizer"] == {
            "type": PRETRAINED,
            "weights": [str(weights)],
            "tokenizer": TOKENIZER,
        }
        recorded = record_weights(loaded.to_dict())
        assert recorded["tokenizer"]["sha256"] == [sha256_of(weights)]
        assert str(tmp_path / page) not in json.dumps(recorded)
        (tmp_path / "config.json").write_text(json.dumps(recorded))
        again = config.load(tmp_path / "config.json").to_dict()
        built = build(again["tokenizer"], path="tokenizer")
        reference = vq.load(weights).state_dict()
        assert all(torch.equal(t, reference[n]) for n, t in built.state_dict().items())
        assert not built.training


def test_pages_that_name_each_other_end_in_one_error(tmp_path: Path) -> None:
    for here, there in (("a", "b"), ("b", "a")):
        (tmp_path / f"{here}.py").write_text(
            "from vq.tokenizers import pretrained_tokenizer\n"
            f"tokenizer = dict(type=pretrained_tokenizer, weights=['w'], config={str(tmp_path / there)!r} + '.py')\n"
        )
    with pytest.raises(ConfigError, match="names itself as the page of its tokenizer"):
        config.load(tmp_path / "a.py")


def test_weights_that_name_each_other_end_in_one_error(tmp_path: Path) -> None:
    names = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for here, there in (names, names[::-1], (names[0], names[0])):
        raw(here, {"tokenizer": {"type": PRETRAINED, "weights": [str(there)]}})
        raw(there, {"tokenizer": {"type": PRETRAINED, "weights": [str(here)]}})
        with pytest.raises(UserError, match="names itself as its tokenizer"):
            vq.load(here)
    chain = [tmp_path / f"chain_{i}.safetensors" for i in range(40)]
    for here, there in zip(chain, [*chain[1:], tmp_path / "none"], strict=True):
        raw(here, {"tokenizer": {"type": PRETRAINED, "weights": [str(there)]}})
    with pytest.raises(UserError, match="files in a row"):
        vq.load(chain[0])


def test_an_old_config_without_a_page_still_builds(weights: Path) -> None:
    built = build({"type": PRETRAINED, "weights": [str(weights)]}, path="tokenizer")
    assert built.codebook_size == 9
    assert not any(p.requires_grad for p in built.parameters())


def test_other_weights_under_the_recorded_path_are_refused(tmp_path: Path, weights: Path) -> None:
    recorded = record_weights({"tokenizer": {"type": PRETRAINED, "weights": [str(weights)]}})
    moved = weights.rename(tmp_path / "moved.safetensors")
    with pytest.raises(ConfigError, match=r"no such file.*--weights tokenizer.weights\[0\]=PATH"):
        build(recorded["tokenizer"], path="tokenizer")
    found = config.with_weights(recorded, {"tokenizer": str(moved)})
    assert build(found["tokenizer"], path="tokenizer").codebook_size == 9
    assert config.with_weights(recorded, {".tokenizer.weights[0]": str(moved)}) == found
    save_weights(build(TOKENIZER, path="tokenizer").state_dict(), weights, {"tokenizer": TOKENIZER})
    with pytest.raises(ConfigError, match=r"not the weights that the config refers to: expected SHA-256"):
        build(recorded["tokenizer"], path="tokenizer")
    with pytest.raises(ConfigError, match=r"expected a sha256 of each of 1 weights, got 2"):
        build({**recorded["tokenizer"], "sha256": ["a", "b"]}, path="tokenizer")
    two = {"tokenizer": {"type": PRETRAINED, "weights": ["a", "b"]}}
    assert config.with_weights(two, {"tokenizer.weights[1]": "c"})["tokenizer"]["weights"] == ["a", "c"]
    for key, message in (
        ("tokenizer", "expected one of 2 weights"),
        ("tokeniser", "did you mean 'tokenizer'"),
        ("tokenizer.type", "expected a part that takes weights"),
        ("tokenizer.weights[2]", "no such place"),
    ):
        with pytest.raises(ConfigError, match=message):
            config.with_weights(two, {key: "x"})


def test_a_codebook_file_is_meant_by_its_checksum(tmp_path: Path) -> None:
    file = tmp_path / "codes.safetensors"
    save_file({"codes": torch.eye(4)[:, :2].contiguous()}, file)
    node = {"type": "vq.quantizers.LearnedCodebook", "size": 4, "dim": 2,
            "init": {"type": "vq.quantizers.FileInit", "path": str(file)}}  # fmt: skip
    recorded = record_weights(node)
    assert recorded["init"]["sha256"] == sha256_of(file)
    assert torch.equal(build(recorded, path="x.codebook").weight, torch.eye(4)[:, :2])
    save_file({"codes": torch.ones(4, 2)}, file)
    with pytest.raises(ConfigError, match="expected the SHA-256"):
        build(recorded, path="x.codebook")


STRANGE: list[Any] = [
    None, 0, -1, 2**70, 1e308, float("nan"), True, "", "x", "\ud800", "a\0b", [], [[]], {}, {"type": 3}, {"type": None},
    {"type": []}, {"type": "vq"}, {"type": "vq.registry.SLOTS"}, {"type": "vq.errors.UserError"}, {"type": "os.system"},
    {"type": "vq.quantizers.VectorQuantizer"}, {"type": "vq.engine.Trainer"}, {"": 1}, {"type": "vq.quantizers"},
]  # fmt: skip


def mutated(value: Any, chance: random.Random) -> Any:
    """The value with one part replaced by something strange."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {
                (k if k != key else chance.choice(["", "x", "type", "bias"])): v for k, v in value.items()
            }
        return {**value, key: mutated(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.5:
        i = chance.randrange(len(value))
        return [*value[:i], mutated(value[i], chance), *value[i + 1 :]]
    return chance.choice(STRANGE)


@pytest.mark.timeout(60)
def test_metadata_of_any_form_end_in_an_error_that_a_user_can_mend(tmp_path: Path, weights: Path) -> None:
    file = tmp_path / "evil.safetensors"
    chance = random.Random(0)
    trees: list[Any] = [
        *STRANGE,
        *({"tokenizer": s} for s in STRANGE),
        *({"generator": s} for s in STRANGE),
    ]
    trees += [{"tokenizer": {**TOKENIZER, "type": s}} for s in STRANGE]
    trees += [mutated({"tokenizer": TOKENIZER}, chance) for _ in range(250)]
    texts = [
        "",
        "{",
        "[" * 200_000,
        '{"tokenizer":' * 100_000,
        "nul",
        '{"tokenizer": 1, "tokenizer": 2}',
        "\x00",
    ]
    for content in [*map(json.dumps, trees), *texts]:  # none of them fits the one tensor in the file
        with pytest.raises(UserError, match="evil") as error:
            vq.load(raw(file, content))
        assert len(str(error.value)) < 3000


def test_metadata_of_any_size_are_bounded(tmp_path: Path) -> None:
    file = raw(tmp_path / "large.safetensors", json.dumps({"tokenizer": "x" * (config.MAX_CHARACTERS + 1)}))
    with pytest.raises(CheckpointError, match="expected at most"):
        read_config(file)


def test_tensors_that_would_lose_values_are_refused(tmp_path: Path) -> None:
    module = torch.nn.BatchNorm1d(2)
    state = module.state_dict()
    for change in (
        {"weight": torch.ones(2, dtype=torch.complex64)},
        {"num_batches_tracked": torch.tensor(0.5)},
    ):
        torch.save({**state, **change}, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match="of a type whose conversion would lose values"):
            load_weights(module, [tmp_path / "w.pth"])
    torch.save({**state, 3: torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="expected names and tensors"):
        load_weights(module, [tmp_path / "w.pth"])
    with pytest.raises(CheckpointError, match=r"--allow-missing '\*.bias': not a regular expression"):
        load_weights(module, [], allow_missing="*.bias")


def test_python_says_where_weights_are_now_as_the_command_line_does(tmp_path: Path, weights: Path) -> None:
    recorded = record_weights({"tokenizer": {"type": PRETRAINED, "weights": [str(weights)]}})
    own = tmp_path / "own.safetensors"
    save_weights(vq.load(weights).state_dict(), own, recorded)
    moved = weights.rename(tmp_path / "moved.safetensors")
    for where in ({"tokenizer": moved}, {".tokenizer.weights[0]": str(moved)}):
        assert vq.load(own, weights=where).codebook_size == 9
    assert vq.load(own).codebook_size == 9  # the file holds all weights itself
    for where, message in (
        ({"tokenizer": tmp_path / "none"}, "there is no such file"),
        ({"tokeniser": moved}, "did you mean 'tokenizer'"),
        ({"tokenizer": own}, "expected SHA-256"),
        ({"train_step": moved}, "has no such place"),
    ):
        with pytest.raises(UserError, match=message):
            vq.load(own, weights=where)


def test_python_says_where_the_codes_of_a_frozen_codebook_are_now(tmp_path: Path) -> None:
    file = tmp_path / "codes.safetensors"
    save_file({"codes": torch.eye(4)[:, :2].contiguous()}, file)
    codebook = {"type": "vq.quantizers.LearnedCodebook", "size": 4, "dim": 2,
                "init": {"type": "vq.quantizers.FileInit", "path": str(file)}}  # fmt: skip
    tree = {**TOKENIZER, "quantizer": {"type": "vq.quantizers.VectorQuantizer", "codebook": codebook}}
    own = tmp_path / "own.safetensors"
    save_weights(build(tree, path="tokenizer").state_dict(), own, record_weights({"tokenizer": tree}))
    moved = file.rename(tmp_path / "moved.safetensors")
    with pytest.raises(UserError, match=r"codes\.safetensors"):
        vq.load(own)
    assert vq.load(own, weights={"tokenizer.quantizer.codebook.init": moved}).codebook_size == 4


def test_a_page_may_read_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is code, which the user typed: it may open what it wants, beside itself and in the current folder."""
    (tmp_path / "sizes.json").write_text("[3, 3]")
    (tmp_path / "page.py").write_text(
        "import json\nfrom pathlib import Path\n"
        "levels = json.loads((Path(__file__).parent / 'sizes.json').read_text())\n"
        "with open('sizes.json') as file:\n    again = json.load(file)\n"
        f"assert levels == again\ntokenizer = {TOKENIZER!r}\ntokenizer['quantizer']['levels'] = levels\n"
    )
    monkeypatch.chdir(tmp_path)
    loaded = config.load(tmp_path / "page.py")
    assert build(loaded["tokenizer"], path="tokenizer").codebook_size == 9
