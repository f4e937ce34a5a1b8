"""Every page in configs/ loads, says what it is, builds on the meta device, and takes two steps at smoke size."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pages import tree_of

from vq import config
from vq.config.bases import base_of
from vq.config.pages import Page
from vq.engine import assembly
from vq.engine.loop.step_runner import StepRunner
from vq.generators import LLAMA_SIZES
from vq.generators.stem import order_of
from vq.networks import FrequencyEncoder
from vq.ops.dct import idct2
from vq.registry import build
from vq.tokenizers.checkpoint import save_weights

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in (ROOT / "configs").rglob("*.py") if p.parent.name != "fid")  # those train nothing
IDS = [str(p.relative_to(ROOT / "configs")) for p in PAGES]
GENERATORS = [p for p in PAGES if config.trained_section(tree_of(p)) == "generator"]
PROBES = [p for p in PAGES if config.trained_section(tree_of(p)) == "probe"]
TRAINED_TOKENIZERS = {
    ("decoder", "vqgan"): "vqkd/clip_8192_imagenet_ddp.py",
    ("decoder", "llamagen"): "cluster/clip_8192_imagenet_ddp.py",
    ("decoder", "vqkd"): "vqkd/clip_8192_imagenet_ddp.py",
    ("decoder", "vqkd_large"): "vqkd/clip_8192_imagenet_ddp.py",
    ("decoder", "finetune"): "vqgan/8192_imagenet_ddp.py",
    ("decoder", "emoji"): "vqkd/256_emoji.py",
    ("decoder", "finetune_emoji"): "ema/1024_emoji.py",
    ("zoo", "imagenet"): "llamagen/vqgan_imagenet_ddp.py",
    ("zoo", "photos"): "llamagen/vqgan_imagenet_ddp.py",
}
"""The pages that train a decoder for a trained tokenizer, and a page of such a tokenizer."""
OPEN_SIZES = {"vocabulary_size": 8192, "num_classes": 3, "grid": (4, 4)}
"""Sizes for the pages of generators that leave them open."""
PICTURES = {"type": "vq.data.ProceduralDataset", "num_images": 16, "image_size": 64}


def smoke(page: Path, pretrained: Path | None = None) -> dict:
    """The page with small RGB pictures, a small batch, and narrow networks; everything else as it is.

    Args:
        page: The page.
        pretrained: The weights of the trained tokenizer that it needs.
    """
    given = options_of(page, pretrained)
    tree = config.load(page, options=given).to_dict() if given else tree_of(page)
    overrides = {}
    for loader in ("train_data", "val_data"):
        overrides |= {f".{loader}.batch_size": 4, f".{loader}.num_workers": 0}
        if tree[loader]["dataset"].get("channels", 3) == 3:
            overrides[f".{loader}.dataset"] = PICTURES
    options = {"image_size": 64} if declares(page, "image_size") else {}
    options |= options_of(page, pretrained)
    tree = config.load(page, options=options, overrides=overrides | narrow(tree)).to_dict()
    return with_offline_teachers(tree)


def options_of(page: Path, pretrained: Path | None) -> dict[str, str]:
    return {} if pretrained is None else {"it_state_dict": str(pretrained)}


def untrained_tokenizer(page: Path) -> dict:
    """The section `tokenizer` of a page for a trained tokenizer, which takes its place without weights."""
    node = tree_of(page)["tokenizer"]
    inner = config.load(ROOT / "configs" / TRAINED_TOKENIZERS[page.parent.name, page.stem]).to_dict()
    if node["type"] in config.PRETRAINED_TOKENIZER:
        return inner["tokenizer"]
    return node | {"tokenizer": inner["tokenizer"]}


def with_offline_teachers(tree: dict) -> dict:
    """The page with a teacher that needs no download, and the other parts with its number of channels."""
    channels = None
    for node in config.nodes(tree):
        if node.get("teacher", {}).get("type") == "vq.networks.TimmTeacher":
            node["teacher"] = {"type": "vq.networks.EfficientNetTeacher"}
            channels = 112
        if node["type"] == "vq.networks.TimmEncoder":
            node |= {"name": "vit_tiny_patch16_224", "weights": None}
    for node in config.nodes(tree["tokenizer"]):
        if channels and node["type"] == "vq.tokenizers.FeatureTokenizer":
            if node.get("decoder"):  # it predicts the features
                node["decoder"]["patches"]["channels"] = channels
            else:  # the codes are means of features
                node["quantizer"]["codebook"]["dim"] = channels
    return tree


@pytest.fixture(scope="session")
def trained_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path | None]:
    """Gives the weights of the tokenizer that a page is for, narrow and untrained, or None if it needs none."""
    folder = tmp_path_factory.mktemp("trained_tokenizers")

    def weights(page: Path) -> Path | None:
        name = TRAINED_TOKENIZERS.get((page.parent.name, page.stem))
        if name is None:
            return None
        file = folder / name.replace("/", "_") / "model.safetensors"
        if not file.exists():
            file.parent.mkdir()
            tree = smoke(ROOT / "configs" / name)
            save_weights(assembly.make_tokenizer(tree).state_dict(), file, tree)
        return file

    return weights


def declares(page: Path, option: str) -> bool:
    """Whether a page, or its base, declares an option."""
    parsed = Page(page, page.read_text())
    base = base_of(parsed)
    return option in parsed.options or (base is not None and option in base.options)


def narrow(tree: dict) -> dict:
    """Overrides that make wide networks cheap, and leave their kind and depth."""
    changes: dict[str, object] = {}
    for part in ("encoder", "decoder"):
        node = tree["tokenizer"].get(part, {"type": ""})
        kind = node["type"].rpartition(".")[2]
        if kind in ("ViTEncoder", "ViTDecoder") and node["transformer"]["width"] > 512:
            width = 4 * node["transformer"]["num_heads"]
            changes[f".tokenizer.{part}.transformer.width"] = width
            changes[f".tokenizer.{part}.transformer.positions.width"] = width
        if kind in ("CNNEncoder", "CNNDecoder"):
            changes[f".tokenizer.{part}.base_width"] = 8
        if kind in ("VQVAEEncoder", "VQVAEDecoder"):
            changes[f".tokenizer.{part}.width"] = 16
    if "lpips" in tree["train_step"].get("losses", {}):
        changes[".train_step.losses.lpips.network"] = "alex"
    discriminator = tree["train_step"].get("adversary", {}).get("discriminator", {"type": ""})
    if discriminator["type"].endswith(".PatchDiscriminator"):
        changes[".train_step.adversary.discriminator.base_width"] = 8
    if discriminator["type"].endswith(".StyleGAN2Discriminator"):
        changes[".train_step.adversary.discriminator.max_width"] = 16
    return changes


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_says_what_it_is(page: Path) -> None:
    text = page.read_text()
    name = str(page.relative_to(ROOT / "configs"))
    assert f"configs/{name}" in text, "the docstring gives the command"
    assert re.search(r"^Expected: \S", text, re.M), "the docstring gives the expected score and its status"
    expected = text.partition("Expected:")[2].partition("Needs:")[0].partition('"""')[0]
    assert re.search(r"\bmeasured here\b|\bnot yet run\b", expected), (
        "the score is measured here, or the page not yet run"
    )
    assert len(text.splitlines()) <= (240 if "contestants" in text else 120)


@pytest.mark.parametrize("size", ["B", "L", "XL", "XXL", "3B", "medium"])
def test_the_pages_have_the_published_sizes_of_llamagen(size: str) -> None:
    name = "ar/c2i_llama_medium_cfg_imagenet_ddp" if size == "medium" else f"llamagen/c2i_{size}_imagenet_ddp"
    transformer = config.load(ROOT / "configs" / f"{name}.py").to_dict()["generator"]["transformer"]
    assert {key: transformer[key] for key in LLAMA_SIZES[size]} == LLAMA_SIZES[size]


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if re.search("^_base_ =", p.read_text(), re.M)],
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_a_page_with_a_base_says_only_what_differs(page: Path) -> None:
    text = page.read_text()
    parsed = Page(page, text)
    base = base_of(parsed)
    assert base is not None
    sections, options = parsed.run({}, base.options)
    base_sections, base_options = base.run({}, base.options)
    changed = {name: value for name, value in options.items() if f'options["{name}"]' not in text}
    assert not list(repeats(sections, base_sections)), "the base has these values already"
    assert not list(repeats(changed, base_options)), "the base has these defaults already"


def repeats(changes: dict, base: dict, place: str = "") -> Iterator[str]:
    for key, value in changes.items():
        if isinstance(value, dict) and "type" not in value and isinstance(base.get(key), dict):
            yield from repeats(value, base[key], f"{place}.{key}")
        elif base.get(key) == value:
            yield f"{place}.{key}"


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p not in PROBES], ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_builds_on_the_meta_device(page: Path) -> None:
    tree = tree_of(page)
    if (page.parent.name, page.stem) in TRAINED_TOKENIZERS:
        tree["tokenizer"] = untrained_tokenizer(page)
    for name in config.open_sizes(tree):  # a command takes them from the tokenizer and the data
        tree["generator"][name] = OPEN_SIZES[name]
    with torch.device("meta"):
        model = assembly.make_model(with_offline_teachers(tree))
    assert all(p.is_meta for p in model.parameters())
    if "generator" not in tree:
        sizes = {m.get("codebook_size") for m in tree["evaluator"]["metrics"]} - {None}
        assert sizes == {model.codebook_size}, "the metrics count another number of codes than there are"


def with_slow_rest(pages: list[Path], fast: int) -> list[Any]:
    """The pages as parameters of a test; those after the first few of their folder are tested by `make slow`."""
    seen: Counter[Path] = Counter()
    found = []
    for page in pages:
        seen[page.parent] += 1
        marks = pytest.mark.slow if seen[page.parent] > fast else ()
        found.append(pytest.param(page, marks=marks, id=str(page.relative_to(ROOT))))
    return found


@pytest.mark.parametrize("page", with_slow_rest([p for p in PAGES if p not in GENERATORS + PROBES], fast=2))
def test_takes_two_steps(page: Path, trained_tokenizers: Callable[[Path], Path | None]) -> None:
    tree = smoke(page, trained_tokenizers(page))
    if "adversary" in tree["train_step"]:
        tree["train_step"]["adversary"]["start_step"] = 0
    step = assembly.make_step(tree, assembly.make_tokenizer(tree).train())
    runner = StepRunner(train_step=step, data=assembly.make_loader(tree, "train_data"), seed=0)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    for result in runner.run(stop=2):
        assert all(torch.isfinite(value) for value in result.scalars.values()), result
    changed = {
        name for name, tensor in step.model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed
    assert not any(step.model.is_frozen(name) for name in changed)


@pytest.mark.parametrize("page", GENERATORS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_generator_takes_two_steps(page: Path) -> None:
    tree = tree_of(page)
    node = tree["generator"]
    for name in config.open_sizes(tree):
        node[name] = OPEN_SIZES[name]
    for name in ("transformer", "depth_transformer"):
        if shape := node.get(name):
            shape.update(
                width=16 * shape["num_heads"], depth=2, **({"hidden": 32} if "hidden" in shape else {})
            )
    if "width" in node:
        node |= {"width": 16, "depth": 2}
    model = assembly.make_model(tree).train()
    step = assembly.make_step(tree, model)
    stack = (model.num_indices,) if model.num_indices > 1 else ()
    batch = {
        "indices": torch.randint(model.vocabulary_size, (2, *model.grid, *stack)),
        "label": torch.randint(model.num_classes, (2,)),
        "key": ["a", "b"],
    }
    before = [p.detach().clone() for p in model.parameters()]
    for number in range(2):
        scalars = step([batch], number)
        assert all(torch.isfinite(value) for value in scalars.values()), scalars
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    groups = step.optimization.optimizer.inner.param_groups
    assert groups[1]["weight_decay"] == 0
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert all(p.ndim < 2 for p in groups[1]["params"])


@pytest.mark.parametrize("page", PROBES, ids=lambda p: p.stem)
def test_a_probe_takes_two_steps(page: Path) -> None:
    tree = tree_of(page)
    frozen = None
    if "tokenizer" in tree:
        frozen = assembly.make_tokenizer(config.load(ROOT / "tests" / "tiny_page.py").to_dict()).eval()
    model = assembly.make_model(tree, frozen_tokenizer=frozen).train()
    step = assembly.make_step(tree, model, frozen_tokenizer=frozen)
    image = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    batch = {"image": image, "label": torch.randint(model.num_classes, (4,)), "key": list("abcd")}
    before = [p.detach().clone() for p in model.parameters()]
    for number in range(2):
        scalars = step([batch], number)
        assert all(torch.isfinite(value) for value in scalars.values()), scalars
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    dataset = tree["train_data"]["dataset"]
    if not dataset["type"].endswith("ImageNet"):
        assert len(build(dataset, path="train_data.dataset").class_names) == model.num_classes


def test_the_page_of_frequencies_proposes_low_ones_first() -> None:
    """A wave of frequency (v, u) must come out at the place that the generator reaches after all lower v + u."""
    pages = [ROOT / "configs" / name for name in ("ar/frequency_emoji.py", "frequency/1024_emoji.py")]
    generator_page, tokenizer_page = (tree_of(page) for page in pages)
    assert generator_page["tokenizer"]["weights"] == ["work_dirs/frequency/1024_emoji"]
    with torch.device("meta"):
        generator = assembly.make_model(generator_page)
        tokenizer = assembly.make_tokenizer(tokenizer_page)
    assert generator.vocabulary_size == tokenizer.codebook_size
    order = order_of(generator_page["generator"]["order"], generator.grid)
    rows, columns = generator.grid
    # As many features as places; each holds one frequency alone.
    waves = idct2(torch.eye(rows * columns).view(rows * columns, rows, columns))

    class Waves(torch.nn.Module):
        out_channels, downsample_factor = rows * columns, 1

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return waves[None]

    features = FrequencyEncoder(encoder=Waves())(torch.zeros(1, 3, rows, columns))[0]
    frequencies = features.flatten(1)[:, order].argmax(0)  # of each place, in the order of the generator
    diagonals = (frequencies // columns + frequencies % columns).tolist()
    assert sorted(frequencies.tolist()) == list(range(rows * columns))
    assert diagonals == sorted(diagonals)


def test_the_reference_setting_has_the_published_sizes() -> None:
    tree = config.load(ROOT / "configs" / "vqgan" / "1024_imagenet_ddp.py").to_dict()
    tree["train_step"] |= {
        "losses": {"l1": {"type": "L1Loss"}},
        "weights": {"l1": 1.0, "quantizer": 1.0, "adversarial": 1.0},
    }
    with torch.device("meta"):
        tokenizer = assembly.make_tokenizer(tree)
        step = assembly.make_step(tree, tokenizer)
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in tokenizer.named_children()}
    assert (count["encoder"], count["decoder"]) == (29_298_176, 42_449_795)
    assert count["pre_quant"] == count["post_quant"] == 256 * 256 + 256
    lines = assembly.describe(step, image_size=(256, 256), batch=2)
    assert lines[1] == "parameters of the discriminator: 2,765,633"
    assert "16 x 16 indices out of 1,024" in lines[2]


def timm_teachers() -> list[Path]:
    return [p for p in PAGES if "TimmTeacher" in json.dumps(tree_of(p))]


@pytest.mark.parametrize("page", timm_teachers(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_parts_have_the_channels_and_the_grid_of_the_teacher(page: Path) -> None:
    tree = tree_of(page)
    (node, *others) = [node for node in config.nodes(tree) if node["type"] == "vq.networks.TimmTeacher"]
    assert all(other["name"] == node["name"] for other in others)
    with torch.device("meta"):
        network = timm.create_model(node["name"], pretrained=False)
    channels = network.head.out_features if node.get("with_projection") else network.num_features
    patch = 32 if "convnext" in node["name"] else network.patch_embed.patch_size[0]
    tokenizer = tree["tokenizer"]
    if tokenizer["type"] != "vq.tokenizers.FeatureTokenizer":
        return
    if "decoder" not in tokenizer:
        assert channels == tokenizer["quantizer"]["codebook"]["dim"]
        assert tree["val_data"]["transforms"][0]["size"] % patch == 0
        return
    assert channels == tokenizer["decoder"]["patches"]["channels"]
    seen = node["image_size"] or tree["val_data"]["transforms"][0]["size"]
    assert seen % patch == 0
    assert seen // patch == (7 if "convnext" in node["name"] else 14), "one feature per token of 16 px"


def test_vqkd_has_the_published_sizes() -> None:
    tree = config.load(ROOT / "configs" / "vqkd" / "clip_8192_imagenet_ddp.py").to_dict()
    with torch.device("meta"):
        tokenizer = assembly.make_tokenizer(tree)
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in tokenizer.named_children()}
    millions = {name: round(number / 1e6, 2) for name, number in count.items()}
    assert millions == {"encoder": 86.4, "decoder": 8.25, "quantizer": 0.0}
    assert tokenizer.quantizer.codebook.weight.shape == (8192, 32)
    decoders = [
        config.load(ROOT / "configs" / "decoder" / f"{name}.py").to_dict() for name in ("vqkd", "vqkd_large")
    ]
    transformers = [tree["tokenizer"]["decoder"]["transformer"] for tree in decoders]
    assert [(t["width"], t["depth"], t["num_heads"]) for t in transformers] == [(768, 12, 12), (1280, 32, 16)]
