"""`vq convert FILE`: the project is recognised, the file is written beside the original, and nothing is replaced."""

import json
import re
import resource
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import vq
from tools.convert_checkpoints import main as tool
from vq.__main__ import main
from vq.config import load
from vq.convert import TARGETS as CHOICES
from vq.errors import UserError
from vq.interop import DIALECTS, to_llamagen, to_taming
from vq.interop.layouts import LAYOUTS
from vq.registry import build
from vq.tokenizers import Tokenizer
from vq.tokenizers.checkpoint import read_config, save_weights
from vq.zoo.families.llamagen import GPT_SIZES, gpt
from vq.zoo.families.taming import gumbel
from vq.zoo.vqgan import vqgan

PAGE = Path(__file__).with_name("page_taming.py")
IMAGE = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)


def narrow(distance: str) -> dict[str, object]:
    return vqgan(
        multipliers=(1,), codes=16, dim=4, latent=8, num_blocks=1, attention=False, distance=distance
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    made: Tokenizer = build(narrow("CosineDistance"), path="tokenizer")
    return made.eval()


@pytest.fixture
def state(tokenizer: Tokenizer) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in to_llamagen(tokenizer.state_dict()).items()}


def test_the_project_is_recognised(
    tokenizer: Tokenizer, state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": state}, "vq.pt")
    main(["convert", "vq.pt"])
    assert capsys.readouterr().out.startswith(
        f"vq.safetensors: llamagen weights, {len(tokenizer.state_dict())} tensors, "
    )
    assert torch.equal(vq.load("vq.safetensors").encode(IMAGE), tokenizer.encode(IMAGE))
    with pytest.raises(UserError, match=re.escape("vq.safetensors: exists already; give another --out")):
        main(["convert", "vq.pt"])


def test_where_the_file_is_written(state: dict[str, Tensor]) -> None:
    save_file(state, "vq.safetensors")
    before = Path("vq.safetensors").read_bytes()
    main(["convert", "vq.safetensors"])
    main(["convert", "vq.safetensors", "--dialect", "llamagen", "--out", "made/here.safetensors"])
    assert Path("vq.converted.safetensors").read_bytes() == Path("made/here.safetensors").read_bytes()
    assert Path("vq.safetensors").read_bytes() == before
    with pytest.raises(UserError, match=r"--out: expected a name that ends in .safetensors, got x.pt"):
        main(["convert", "vq.safetensors", "--out", "x.pt"])


def test_a_page_in_place_of_what_the_tensors_say(capsys: pytest.CaptureFixture[str]) -> None:
    page = load(PAGE).to_dict()
    page["tokenizer"]["quantizer"]["commitment_weight"] = 0.75  # the weights do not say so
    Path("page.json").write_text(json.dumps(page))
    state = to_taming(build(page["tokenizer"], path="tokenizer").state_dict())
    torch.save({"state_dict": state | {"loss.logvar": torch.zeros(())}}, "last.ckpt")
    main(["convert", "last.ckpt", "--config", "page.json"])
    assert capsys.readouterr().out.endswith("numbers, 1 tensors left out (loss.logvar)\n")
    assert read_config(Path("last.safetensors")) == page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "weights: expected those of a known project"),
        (["--dialect", "lamagen"], "dialect: expected one of taming, "),
        (["--dialect", "llamagen"], "llamagen weights: "),
        (
            ["--dialect", "beitv2", "--options", "decoder:True"],
            "beitv2 weights: expected options among with_decoder",
        ),
    ],
)
def test_what_is_refused(words: list[str], message: str) -> None:
    torch.save({"model": {"layer.weight": torch.zeros(2, 2)}}, "other.pt")
    with pytest.raises(UserError, match=re.escape(f"other.pt: {message}")):
        main(["convert", "other.pt", *words])
    assert [path.name for path in Path().iterdir()] == ["other.pt"]


def test_the_tool_compares_with_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    """`--check`: the weights say what is written, and the page must have the same tensors and the same distance."""
    page = load(PAGE).to_dict()
    theirs = to_taming(build(page["tokenizer"], path="tokenizer").state_dict())
    torch.save({"state_dict": theirs}, "last.ckpt")
    tool(["taming_transformers", "last.ckpt", "--check", str(PAGE)])
    tool(["taming", "last.ckpt", "--suffix", ".unchecked"])
    assert Path("last.ckpt.converted").read_bytes() == Path("last.ckpt.unchecked").read_bytes()
    capsys.readouterr()
    cosine = page["tokenizer"]["quantizer"] | {"distance": {"type": "vq.quantizers.CosineDistance"}}
    others = {"narrow": narrow("EuclideanDistance"), "cosine": page["tokenizer"] | {"quantizer": cosine}}
    for name, changed in others.items():
        Path(f"{name}.json").write_text(json.dumps({"tokenizer": changed}))
        with pytest.raises(UserError, match=rf"last.ckpt is not for {name}.json: .*; nothing is written"):
            tool(["taming", "last.ckpt", "--check", f"{name}.json", "--out", f"{name}.safetensors"])
        assert not Path(f"{name}.safetensors").exists()


TARGETS = {
    "taming": ("EuclideanDistance", "x.ckpt"),
    "llamagen": ("CosineDistance", "x.pt"),
    "diffusers": ("EuclideanDistance", "x"),
}


def own_file(name: str, node: dict[str, object], section: str = "tokenizer") -> dict[str, Tensor]:
    """Writes the weight file of a random model of this project."""
    torch.manual_seed(0)
    state = build(node, path=section).state_dict()
    save_weights(state, Path(name), {section: node})
    return state


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("attention", [{"attention": True}, {"attention": False, "middle_attention": True}])
def test_weights_for_another_project_are_read_again_bit_for_bit(
    target: str, attention: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    distance, out = TARGETS[target]
    small = {"multipliers": (1, 1), "codes": 16, "dim": 4, "latent": 8, "num_blocks": 1}
    state = own_file("own.safetensors", vqgan(**small, distance=distance, **attention))
    main(["convert", "own.safetensors", "--to", target, "--out", out])
    said = f"{out}: {target} weights, {len(state) - 1} tensors; they are read again as those of own.safetensors, "
    said += "bit for bit\n"
    assert capsys.readouterr().out == said
    main(["convert", out, "--out", "back.safetensors"])
    assert Path("back.safetensors").read_bytes() == Path("own.safetensors").read_bytes()
    assert sorted(path.name for path in Path().iterdir()) == sorted(
        ["own.safetensors", "back.safetensors", out]
    )


def test_a_generator_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GPT_SIZES, "tiny", {"width": 16, "depth": 1, "num_heads": 2, "hidden": 8})
    node = gpt(**GPT_SIZES["tiny"], image_size=32, codes=16, classes=3)
    own_file("own.safetensors", node, "generator")
    main(["convert", "own.safetensors", "--to", "llamagen_gpt", "--out", "c2i.pt"])
    main(["convert", "c2i.pt", "--options", "image_size:32", "--out", "back.safetensors"])
    assert Path("back.safetensors").read_bytes() == Path("own.safetensors").read_bytes()
    node["transformer"]["num_heads"] = 4  # names and shapes are the same
    own_file("other.safetensors", node, "generator")
    with pytest.raises(UserError, match="computes what a llamagen_gpt model of these shapes computes"):
        main(["convert", "other.safetensors", "--to", "llamagen_gpt", "--out", "other.pt"])
    assert not Path("other.pt").exists()


def test_gumbel_weights_are_written() -> None:
    networks = {"multipliers": (1,), "latent": 8, "num_blocks": 1, "attention": False}
    own_file("own.safetensors", gumbel(codes=16, dim=8, networks=networks))
    main(["convert", "own.safetensors", "--to", "taming_gumbel", "--out", "x.ckpt"])
    assert list(torch.load("x.ckpt", weights_only=True)) == ["state_dict"]
    main(["convert", "x.ckpt", "--out", "back.safetensors"])
    assert Path("back.safetensors").read_bytes() == Path("own.safetensors").read_bytes()


def test_llamagen_finds_the_statistic_of_its_module() -> None:
    own_file("own.safetensors", narrow("CosineDistance"))
    main(["convert", "own.safetensors", "--to", "llamagen", "--out", "x.pt"])
    written = torch.load("x.pt", weights_only=True)
    assert list(written) == ["model"]
    assert torch.equal(written["model"]["quantize.codebook_used"], torch.zeros(65536))


def test_weights_of_one_project_are_written_for_another() -> None:
    own_file("own.safetensors", narrow("EuclideanDistance"))
    main(["convert", "own.safetensors", "--to", "taming", "--out", "x.ckpt"])
    main(["convert", "x.ckpt", "--to", "diffusers", "--out", "through"])
    main(["convert", "own.safetensors", "--to", "diffusers", "--out", "direct"])
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert Path("through", name).read_bytes() == Path("direct", name).read_bytes()


def changed(**parts: object) -> dict[str, object]:
    return narrow("EuclideanDistance") | parts


EMA = {
    "type": "vq.quantizers.VectorQuantizer",
    "codebook": {"type": "vq.quantizers.EMACodebook", "size": 16, "dim": 4},
}
FSQ = {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [4, 4, 4, 4]}


@pytest.mark.parametrize(
    ("node", "words", "message"),
    [
        (narrow("CosineDistance"), [], "expected a quantizer with EuclideanDistance, got CosineDistance"),
        (changed(value_range=[0, 1]), [], "expected a tokenizer with value_range (-1.0, 1.0)"),
        (
            changed(quantizer=FSQ),
            [],
            "expected a tokenizer with a VectorQuantizer, got FiniteScalarQuantizer",
        ),
        (
            changed(quantizer=EMA),
            [],
            "got 2 with no counterpart (quantizer.codebook.sums, quantizer.codebook.usage)",
        ),
        (changed(projection_kernel=3), [], "got 2 of another shape: post_quant.weight"),
        (
            narrow("EuclideanDistance"),
            ["--dialect", "taming"],
            "expected no dialect, config or options for weights",
        ),
    ],
)
def test_what_another_project_cannot_hold(node: dict[str, object], words: list[str], message: str) -> None:
    own_file("own.safetensors", node)
    with pytest.raises(UserError, match=re.escape(message)):
        main(["convert", "own.safetensors", "--to", "taming", "--out", "x.ckpt", *words])
    assert [path.name for path in Path().iterdir()] == ["own.safetensors"]


def test_tensors_of_another_config() -> None:
    node = narrow("EuclideanDistance")
    state = build(node, path="tokenizer").state_dict()
    del state["pre_quant.bias"]
    save_weights(state, Path("own.safetensors"), {"tokenizer": node})
    with pytest.raises(
        UserError, match=r"own.safetensors: expected the tensors of the model in its config, got"
    ):
        main(["convert", "own.safetensors", "--to", "taming", "--out", "x.ckpt"])


def test_a_codebook_that_awaits_its_first_batch_is_not_written() -> None:
    node = narrow("EuclideanDistance")
    node["quantizer"]["codebook"]["init"] = {"type": "vq.quantizers.KMeansInit"}
    own_file("own.safetensors", node)
    with pytest.raises(
        UserError, match=r"but 1 are not \(quantizer.codebook.initialised\); nothing is written"
    ):
        main(["convert", "own.safetensors", "--to", "diffusers", "--out", "x"])
    assert [path.name for path in Path().iterdir()] == ["own.safetensors"]


def test_the_target_of_to() -> None:
    own_file("own.safetensors", narrow("EuclideanDistance"))
    with pytest.raises(UserError, match="--to taming: expected --out, the file or folder to write, got none"):
        main(["convert", "own.safetensors", "--to", "taming"])
    with pytest.raises(UserError, match=r"--out: expected a name that ends in .ckpt for taming, got x.pt"):
        main(["convert", "own.safetensors", "--to", "taming", "--out", "x.pt"])
    Path("x").mkdir()
    with pytest.raises(UserError, match="x: exists already; give another --out, or delete it"):
        main(["convert", "own.safetensors", "--to", "diffusers", "--out", "x"])
    assert list(Path("x").iterdir()) == []
    with pytest.raises(UserError, match="--to: invalid choice: 'titok'"):
        main(["convert", "own.safetensors", "--to", "titok", "--out", "y.bin"])
    assert set(LAYOUTS) == set(CHOICES)
    assert all(DIALECTS[name].write for name in CHOICES)


def test_the_config_that_diffusers_reads() -> None:
    node = vqgan(multipliers=(1, 2), codes=16, dim=4, latent=8, num_blocks=1, attention=True)
    own_file("own.safetensors", node)
    main(["convert", "own.safetensors", "--to", "diffusers", "--out", "x"])
    assert json.loads(Path("x/config.json").read_text()) == {
        "_class_name": "VQModel",
        "act_fn": "silu",
        "block_out_channels": [128, 256],
        "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "in_channels": 3,
        "latent_channels": 8,
        "layers_per_block": 1,
        "mid_block_add_attention": True,
        "norm_num_groups": 32,
        "norm_type": "group",
        "num_vq_embeddings": 16,
        "out_channels": 3,
        "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        "vq_embed_dim": 4,
    }
    with safe_open("x/diffusion_pytorch_model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("attention", [{"attention": True}, {"attention": False}])
@torch.no_grad()
def test_diffusers_loads_the_folder(attention: dict[str, object]) -> None:
    diffusers = pytest.importorskip("diffusers", reason="pip install diffusers")
    node = vqgan(multipliers=(1, 2), codes=16, dim=4, latent=8, num_blocks=1, **attention)
    own_file("own.safetensors", node)
    main(["convert", "own.safetensors", "--to", "diffusers", "--out", "x"])
    theirs, ours = diffusers.VQModel.from_pretrained("x").eval(), vq.load("own.safetensors")
    indices = theirs.quantize(theirs.encode(IMAGE).latents)[2][2]
    assert torch.equal(indices.view(1, 8, 8), ours.encode(IMAGE))
    torch.testing.assert_close(theirs(IMAGE).sample, ours(IMAGE).reconstruction, rtol=0, atol=1e-4)
    theirs.save_pretrained("shards", max_shard_size="10MB")
    main(["convert", "shards"])
    assert Path("shards.safetensors").read_bytes() == Path("own.safetensors").read_bytes()


@pytest.fixture
def shards(state: dict[str, Tensor]) -> Path:
    """A folder with a model in three shards, one of which has other parts of a whole model."""
    state = {f"gen_vision_model.{name}": tensor for name, tensor in state.items()}
    state |= {"language_model.embed.weight": torch.zeros(2, 2)}
    Path("whole").mkdir()
    weight_map = {}
    for number in range(3):
        part = dict(list(state.items())[number::3])
        name = f"pytorch_model-{number}-of-3.bin"
        torch.save(part, Path("whole", name))
        weight_map |= dict.fromkeys(part, name)
    Path("whole/pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return Path("whole")


def test_a_whole_model_in_shards(shards: Path, state: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    main(["convert", "whole"])
    for path in ("whole.safetensors", "whole"):
        assert torch.equal(vq.load(path).encode(IMAGE), tokenizer.encode(IMAGE))


def test_an_index_that_does_not_fit(shards: Path) -> None:
    index = shards / "pytorch_model.bin.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    first = next(iter(weight_map))
    for name in ("../outside.bin", "/outside.bin", "a/b.bin", "..", "", 3, "..\\x.bin"):
        index.write_text(json.dumps({"weight_map": weight_map | {first: name}}))
        with pytest.raises(
            UserError, match=r"expected names of files in this folder, got .*; files elsewhere"
        ):
            main(["convert", "whole"])
    index.write_text(json.dumps({"weight_map": weight_map | {"more": "pytorch_model-0-of-3.bin"}}))
    with pytest.raises(UserError, match=r"pytorch_model-0-of-3.bin: expected the \d+ tensors that .*'more'"):
        main(["convert", "whole"])
    for content in ("{", "[]", "{}", '{"weight_map": {}}'):
        index.write_text(content)
        with pytest.raises(UserError, match=r"whole/pytorch_model.bin.index.json: (damaged|expected)"):
            main(["convert", "whole"])
    index.write_text(json.dumps({"weight_map": weight_map}))
    (shards / "pytorch_model-1-of-3.bin").unlink()
    with pytest.raises(
        UserError, match=r"expected its 3 shards beside it, but 1 are missing \(pytorch_model-1-of"
    ):
        main(["convert", "whole"])
    index.unlink()
    with pytest.raises(
        UserError, match=r"whole: expected a weight file, or a folder with one of diffusion_py"
    ):
        main(["convert", "whole"])
    assert not Path("whole.safetensors").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("_class_name", "AutoencoderKL"), ("norm_num_groups", 16), ("act_fn", "gelu")]
)
def test_a_folder_of_another_model_of_diffusers(field: str, value: object) -> None:
    own_file("own.safetensors", narrow("EuclideanDistance"))
    main(["convert", "own.safetensors", "--to", "diffusers", "--out", "x"])
    config = json.loads(Path("x/config.json").read_text())
    Path("x/config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(UserError, match=rf"x/config.json: expected {field} to be .*, got {value!r}"):
        main(["convert", "x"])


def test_a_run_is_written_and_other_weights_are_loaded() -> None:
    own_file("own.safetensors", narrow("EuclideanDistance"))
    checkpoint = Path("work_dirs/NAME/checkpoints/iter_1")
    checkpoint.mkdir(parents=True)
    Path("own.safetensors").rename(checkpoint / "model.safetensors")
    for number, path in enumerate(("work_dirs/NAME", str(checkpoint))):
        main(["convert", path, "--to", "taming", "--out", f"{number}.ckpt"])
        assert torch.equal(vq.load(f"{number}.ckpt").encode(IMAGE), vq.load(path).encode(IMAGE))
        with pytest.raises(
            UserError, match=f"{path}: expected weights of another project, got those of this one"
        ):
            main(["convert", path])
    with pytest.raises(UserError, match="work_dirs/OTHER: there is no such file or folder"):
        main(["convert", "work_dirs/OTHER", "--to", "taming", "--out", "x.ckpt"])
    main(["convert", "0.ckpt", "--to", "diffusers", "--out", "folder"])
    assert torch.equal(vq.load("folder").encode(IMAGE), vq.load("0.ckpt").encode(IMAGE))


def test_what_is_not_a_tokenizer_is_not_loaded() -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, "other.pt")
    with pytest.raises(
        UserError, match=r"other.pt: has no config, and cannot be converted: weights: expected those"
    ):
        vq.load("other.pt")


@pytest.mark.parametrize(("target", "out"), [("taming", "x.ckpt"), ("diffusers", "x")])
def test_a_full_disk(target: str, out: str) -> None:
    own_file("own.safetensors", narrow("EuclideanDistance"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            UserError, match=rf"{out}: could not be written: (the disk is full|.*File too large)"
        ):
            main(["convert", "own.safetensors", "--to", target, "--out", out])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in Path().iterdir()] == ["own.safetensors"]
