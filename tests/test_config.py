"""Config pages: what they describe, and every way in which they are refused."""

import ast
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vq import config
from vq.config.lines import line_of
from vq.errors import ConfigError
from vq.slots import CodeName

PAGE = '''"""A page."""

from math import prod

from torch.optim import AdamW

from vq.data import ImageLoader, ProceduralDataset
from vq.engine.steps.reconstruction import ReconstructionStep
from vq.losses import L1Loss
from vq.quantizers import FiniteScalarQuantizer

options = dict(image_size=32, split="train")
levels = [8, 5, 5, 5]
codebook_size = prod(levels)

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ProceduralDataset, num_images=codebook_size, image_size=options["image_size"]),
    batch_size=8,
)
train_step = dict(
    type=ReconstructionStep,
    losses=dict(l1=dict(type=L1Loss)),
    weights=dict(l1=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1e-3, betas=(0.9, 0.99)),
)
tokenizer = dict(type="vq.tokenizers.ImageTokenizer", quantizer=dict(type=FiniteScalarQuantizer, levels=levels))
'''


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.py"
    path.write_text(PAGE)
    return path


def edited(page: Path, old: str, new: str) -> Path:
    text = page.read_text()
    assert old in text
    page.write_text(text.replace(old, new))
    return page


def test_a_page_becomes_plain_data_and_equals_its_own_json(page: Path, tmp_path: Path) -> None:
    loaded = config.load(page)
    tree = loaded.to_dict()
    assert tree["tokenizer"]["quantizer"] == {
        "type": "vq.quantizers.FiniteScalarQuantizer",
        "levels": [8, 5, 5, 5],
    }
    assert tree["train_data"]["dataset"]["num_images"] == 1000
    assert tree["train_step"]["optimizer"]["betas"] == [0.9, 0.99]  # one form on the page and in JSON
    assert list(tree) == ["train_data", "tokenizer", "train_step"]  # the order of a page, no helper names
    config.save(loaded, tmp_path)
    assert (tmp_path / "config.py").read_text() == PAGE
    assert config.load(tmp_path / "config.json").to_dict() == tree
    assert json.loads(config.to_json(loaded)) == tree
    assert config.load(tmp_path / "config_resolved.py").to_dict() == tree
    other = config.replaced(loaded, {"trainer": {"type": "vq.engine.Trainer"}})
    assert (other.text, other.filename) == (PAGE, str(page))
    assert other.to_dict() == {"trainer": {"type": "vq.engine.Trainer"}}


def test_names_of_a_page_are_code_and_those_of_json_are_text(page: Path, tmp_path: Path) -> None:
    loaded = config.load(page, overrides={".train_data.transforms": [{"type": "vq.data.Resize", "size": 8}]})
    assert all(type(node["type"]) is CodeName for node in config.nodes(loaded.to_dict()))
    assert len(list(config.nodes(loaded.to_dict()))) == 8
    config.save(loaded, tmp_path)
    nodes = config.nodes(config.load(tmp_path / "config.json").to_dict())
    assert [type(node["type"]) for node in nodes] == [str] * 8


def test_a_stored_config_may_name_modules_that_have_moved(page: Path, tmp_path: Path) -> None:
    stored = config.to_json(config.load(page)).replace("vq.losses.L1Loss", "vq.losses.{}.L1Loss")
    (tmp_path / "old.json").write_text(stored.replace("vq.losses.{}", "vq.losses.reconstruction"))
    assert config.load(tmp_path / "old.json").train_step.losses.l1.type == "vq.losses.reconstruction.L1Loss"
    (tmp_path / "wrong.json").write_text(stored.replace("vq.losses.{}", "vq.metrics.reconstruction"))
    with pytest.raises(ConfigError, match=r"l1.type: there is no module 'vq.metrics.reconstruction'"):
        config.load(tmp_path / "wrong.json")
    with pytest.raises(ConfigError, match=r"there is no module 'vq.losses.reconstruction'"):
        config.load(
            edited(page, "from vq.losses import L1Loss", "from vq.losses.reconstruction import L1Loss")
        )


def test_options_are_filled_in_before_the_page_runs(page: Path) -> None:
    tree = config.load(page, options={"image_size": 64}).to_dict()
    assert tree["train_data"]["dataset"]["image_size"] == 64


def test_overrides_are_assigned_afterwards(page: Path) -> None:
    overrides = {
        ".train_data.batch_size": 16,
        ".tokenizer.quantizer.levels[-1]": 3,
        ".train_step.max_gradient_norm": None,
        ".tokenizer.quantizer.type": "FiniteScalarQuantizer",
    }
    tree = config.load(page, overrides=overrides).to_dict()
    assert tree["train_data"]["batch_size"] == 16
    assert tree["tokenizer"]["quantizer"]["levels"] == [8, 5, 5, 3]
    assert tree["train_step"]["max_gradient_norm"] is None  # an argument that the page left at its default


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "batch_size=8",
            "batch_sise=8",
            r"page.py:\d+: train_data: .*\n.*'batch_sise'; did you mean 'batch_size'",
        ),
        ("num_images=", "num_image=", r"page.py:\d+: train_data.dataset: .*\n.*did you mean 'num_images'"),
        ("lr=1e-3", "lrr=1e-3", r"page.py:\d+: train_step.optimizer: .*\n.*'lrr'; did you mean 'lr'"),
        (
            "train_step = ",
            "train_stpe = ",
            r"page.py:\d+: 'train_stpe' is not a section.*did you mean 'train_step'",
        ),
        (
            "levels = [8",
            "spare = 1\nlevels = [8",
            r"page.py:\d+: 'spare' is not a section, and nothing reads it",
        ),
        ("import L1Loss", "import L1Los", r"page.py:\d+: vq.losses has no 'L1Los'; did you mean 'L1Loss'"),
        ("vq.losses", "vq.loses", r"page.py:\d+: there is no module 'vq.loses'"),
        (
            "vq.tokenizers.ImageTokenizer",
            "ImageTokeniser",
            "no tokenizer is called 'ImageTokeniser'; did you mean 'Ima",
        ),
        ("prod(levels)", "prod(level)", r"page.py:\d+: NameError"),
        ("levels = [8", "levels = [8,,", r"page.py:\d+: not valid Python"),
        ("from math import prod", "import numpy as prod", "write `from numpy import Name`"),
        ("batch_size=8", "batch_size={1, 2}", "train_data.batch_size: a config holds plain data, got set"),
        ("type=ImageLoader,", "", "train_data: expected dict"),
    ],
)
def test_a_wrong_page_is_refused_with_place_and_cure(page: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(edited(page, old, new))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (".train_data.batch_sise", "train_data has no key 'batch_sise'; did you mean 'batch_size'"),
        (".train_dat.batch_size", "the config has no key 'train_dat'; did you mean 'train_data'"),
        (
            ".tokenizer.quantizer.levels[4]",
            r"levels\[4\] does not exist; tokenizer.quantizer.levels is a list of 4",
        ),
        (".tokenizer.quantizer.levels.x", "which has no key 'x'"),
        (".train_data.dataset[0]", r"train_data.dataset\[0\] does not exist"),
        ("train_data.batch_size", "leading dot"),
        (".tokenizer.quantizer.levels[a]", "index must be a number"),
        (".train_step.weights.l2", "train_step.weights has no key 'l2'"),
    ],
)
def test_a_wrong_override_is_refused_with_place_and_cure(page: Path, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(page, overrides={key: 1})


def test_an_unknown_option_and_a_missing_file(page: Path) -> None:
    with pytest.raises(ConfigError, match="no option 'image_sise'; did you mean 'image_size'"):
        config.load(page, options={"image_sise": 1})
    with pytest.raises(ConfigError, match=r"there is no such config; did you mean '.*page.py'"):
        config.load(page.with_name("pgae.py"))


def test_every_key_of_a_page_is_guarded(page: Path) -> None:
    """A misspelt key, anywhere, is an error that names the right one."""
    tree = config.load(page).to_dict()

    def keys(node: object, path: str) -> list[str]:
        if isinstance(node, dict):
            return [p for k, v in node.items() for p in [f"{path}.{k}", *keys(v, f"{path}.{k}")]]
        return []

    places = [p for p in keys(tree, "") if not p.endswith(".type")]
    assert len(places) > 15
    for place in places:
        head, _, last = place.rpartition(".")
        misspelt = f"{head}.{last}x"
        with pytest.raises(ConfigError, match=f"did you mean '{last}'"):
            config.load(page, overrides={misspelt: 1})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("-1.5e-3", -1.5e-3),
        ("None", None),
        ("dict(strict=False)", {"strict": False}),
        ("[1, (2, 3)]", [1, (2, 3)]),
        ("{'a': True}", {"a": True}),
        ("'x:y'", "x:y"),
    ],
)
def test_literals(text: str, value: object) -> None:
    assert config.parse_literal(text) == value


@pytest.mark.parametrize(
    "text", ["__import__('os').system('true')", "a", "1 if x else 2", "dict(**{})", "list()", "f'{1}'"]
)
def test_nothing_on_the_command_line_is_evaluated(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a literal"):
        config.parse_literal(text)


def test_assignments() -> None:
    assert config.parse_assignments([".a.b:1", "c::d:e"]) == {".a.b": 1, "c": "d:e"}
    with pytest.raises(ConfigError, match="expected key:literal or key::text"):
        config.parse_assignments([".a.b=1"])


@pytest.mark.parametrize("how", ["file", "base", "override"])
def test_a_typo_ends_the_command_before_anything_slow_is_imported(page: Path, how: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "vq.train", "typo", str(page)]
    if how == "file":
        edited(page, "batch_size=8", "batch_sise=8")
    elif how == "base":
        page.with_name("base.py").write_text(PAGE)
        page.write_text("_base_ = 'base.py'\ntrain_data = dict(batch_sise=8)\n")
    else:
        command += ["--override", ".train_data.batch_sise:8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 2
    assert "did you mean 'batch_size'" in done.stderr
    assert "Traceback" not in done.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "vq" in imported
    assert not imported & {"mmengine", "torch", "numpy", "rich", "yapf"}


OWN_SECTION = (
    "generator = dict(type='vq.generators.PixelCNNGenerator', vocabulary_size=8, num_classes=2, grid=(2, 2))"
)


@pytest.mark.parametrize(
    "text",
    [
        f"if True:\n    {OWN_SECTION}\n",
        OWN_SECTION.replace("generator =", "generator: dict =") + "\n",
        OWN_SECTION.replace("generator =", "generator, _unused =") + ", 3\n",
        f"for _ in range(1):\n    {OWN_SECTION}\n",
        f"try:\n    {OWN_SECTION}\nfinally:\n    pass\n",
    ],
)
def test_a_section_counts_however_it_is_assigned(page: Path, text: str) -> None:
    page.write_text(page.read_text() + "\n" + text)
    assert config.load(page).to_dict()["generator"]["grid"] == [2, 2]
    page.write_text(page.read_text() + "\ngenerator['num_classes'] = 5\n")
    assert config.load(page).to_dict()["generator"]["num_classes"] == 5


@pytest.mark.parametrize(
    "text",
    [
        "evaluater: dict = dict(type='x')\n",
        "if True:\n    evaluater = 1\n",
        "evaluater, other = 1, 2\nprint(other)\n",
    ],
)
def test_a_misspelt_section_is_refused_however_it_is_assigned(page: Path, text: str) -> None:
    page.write_text(page.read_text() + "\n" + text)
    with pytest.raises(ConfigError, match="'evaluater' is not a section, and nothing reads it"):
        config.load(page)


def test_an_override_changes_one_part_of_those_that_share_a_variable() -> None:
    shared = Path(__file__).parents[1] / "configs/vqvae2/512_emoji.py"
    tree = config.load(shared, overrides={".tokenizer.top_quantizer.codebook.size": 64}).to_dict()[
        "tokenizer"
    ]
    assert [tree[f"{level}_quantizer"]["codebook"]["size"] for level in ("top", "bottom")] == [64, 512]
    tuples = Path(__file__).parents[1] / "configs/vqgan/1024_imagenet_ddp.py"
    tree = config.load(tuples, overrides={".tokenizer.encoder.multipliers[0]": 2}).to_dict()
    assert tree["tokenizer"]["encoder"]["multipliers"][:2] == [2, 1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (".train_step.autocast", True),
        (".train_step.optimizer.params", []),
        (".train_step.tokenizer", None),
        (".trainer.seed", 7),
        (".evaluator.tokenizer", None),
        (".checkpointer.directory", "x"),
        (".checkpointer.config", {}),
    ],
)
def test_what_the_command_fills_in_is_refused(key: str, value: object) -> None:
    tiny = Path(__file__).parent / "tiny_page.py"
    with pytest.raises(ConfigError, match=r"leave .* out|has no key"):
        config.load(tiny, overrides={key: value})


def test_what_the_command_fills_in_is_not_offered() -> None:
    tiny = Path(__file__).parent / "tiny_page.py"
    trainer = {"type": "vq.engine.Trainer", "max_stepz": 8}
    takes = "max_steps, log_every, max_minutes, on_nonfinite, callbacks"
    with pytest.raises(ConfigError, match=rf"\n  Trainer takes: {takes}$"):
        config.load(tiny, overrides={".trainer": trainer})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (".trainer.max_steps", "8", "trainer.max_steps: expected int"),
        (".trainer.max_steps", 8.5, "trainer.max_steps: expected int"),
        (".trainer.max_steps", True, "trainer.max_steps: expected int"),
        (".trainer.max_steps", {1}, "plain data"),
        (".trainer.max_steps", {1: 2}, "expected text as the keys"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(Path(__file__).parent / "tiny_page.py", overrides={key: value})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.py", b"# caf\xe9\n", "latin.py:1: not UTF-8"),
        ("null.py", b"a = 1\0", "not valid Python"),
        ("torn.json", b'{"tokenizer": {', "torn.json:1: not valid JSON, or cut"),
        ("list.json", b"[]", "expected an object with the sections of a config, got a list"),
        ("bom.json", b"\xef\xbb\xbf{}", "byte order mark"),
        ("twice.json", b'{"trainer": 1, "trainer": 2}', "stands twice"),
        ("deep.json", b"[" * 100_000, "nested too deeply"),
        ("other.txt", b"import os", "expected a page"),
        (
            "inside.py",
            b"trainer = dict(type='vq.engine.Trainer')\ntrainer['max_steps'] = trainer\n",
            "inside itself",
        ),
        ("exit.py", b"raise SystemExit(0)\n", "SystemExit"),
    ],
)
def test_a_file_that_is_no_config_is_one_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        config.load(tmp_path / name)
    with pytest.raises(ConfigError, match="is a folder"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    "text", ["{[1]: 2}", "(" * 5000, "dict(a=1, a=2)", "{'a': 1, 'a': 2}", "__import__('os')"]
)
def test_what_is_no_literal_is_one_error(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a literal"):
        config.parse_literal(text)
    with pytest.raises(ConfigError, match="given twice"):
        config.parse_assignments([".a:1", ".a:2"])


def test_an_option_that_the_page_replaces_or_does_not_read_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text("options = dict(a=1)\noptions['a'] = 2\nx = options['a']\nprint(x)\n")
    with pytest.raises(ConfigError, match="replaces its option 'a'"):
        config.load(page, options={"a": 3})
    page.write_text("options = dict(a=1, b=2)\nx = options['a']\nprint(x)\n")
    with pytest.raises(ConfigError, match="declares the option 'b' but does not read it"):
        config.load(page, options={"b": 3})


def test_pages_that_lead_to_each_other_without_end_are_refused(tmp_path: Path) -> None:
    text = "tokenizer = dict(type='vq.tokenizers.pretrained_tokenizer', weights=['w'], config={!r})\n"
    pages = [tmp_path / f"{i}.py" for i in range(8)]
    for page, following in itertools.pairwise(pages):
        page.write_text(text.format(str(following)))
    with pytest.raises(ConfigError, match=r"0.py: expected at most 4 pages that each name the next one"):
        config.load(pages[0])
    pages[2].write_text(text.format(str(pages[0])))
    with pytest.raises(ConfigError, match=r"0.py: names itself as the page of its tokenizer"):
        config.load(pages[0])
    pages[2].write_text(text.format(5).replace("'5'", "5"))
    with pytest.raises(ConfigError, match=r"2.py:1: tokenizer.config: expected the path of a page, got 5"):
        config.load(pages[0])


def test_lines_are_found_through_variables_lists_and_dicts(page: Path) -> None:
    """The line is that on which the value is written, wherever on the page that is."""
    page.write_text(
        "from vq.data import ImageLoader\n"
        "shared = {\n"
        "    'batch_size': 'x',\n"
        "}\n"
        "loader = dict(type=ImageLoader, batch_size=8)\n"
        "loader = dict(loader, **shared)\n"
        "train_data = loader\n"
    )
    with pytest.raises(ConfigError, match=r"page.py:3: train_data.batch_size: expected int"):
        config.load(page)
    page.write_text(
        "from vq.data import ImageLoader, Resize\n"
        "train_data = dict(type=ImageLoader, transforms=[\n"
        "    dict(type=Resize, size=8),\n"
        "    dict(type=Resize, sizze=8),\n"
        "])\n"
    )
    with pytest.raises(ConfigError, match=r"page.py:4: train_data.transforms\[1\]: cannot build Resize"):
        config.load(page)
    page.write_text("train_data = {1: 2}[1]\n")
    with pytest.raises(ConfigError, match=r"page.py:1: train_data: expected dict"):
        config.load(page)


def test_the_options_of_a_page_may_be_a_dict_in_braces(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text(
        "options = {'size': 8, 'count': 2}\nsize = options['size']\n_both = [size, options['count']]\n"
    )
    with pytest.raises(ConfigError, match="no option 'sizze'; did you mean 'size'"):
        config.load(page, options={"sizze": 3})
    page.write_text(
        PAGE.replace('dict(image_size=32, split="train")', '{"image_size": 32, "split": "train"}')
    )
    tree = config.load(page, options={"image_size": 64}).to_dict()
    assert tree["train_data"]["dataset"]["image_size"] == 64


def test_an_error_in_a_page_names_the_last_line_of_the_page_that_ran(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text("def _half(n):\n    return n / 0\n\n\ntrain_data = _half(8)\n")
    with pytest.raises(ConfigError, match=r"page.py:2: ZeroDivisionError"):
        config.load(page)


@pytest.mark.parametrize("choices", ['{"emoji": 1, "digits": 2}', "sizes"])
def test_an_option_without_an_entry_is_refused_with_those_that_exist(choices: str, tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text(
        "from vq.data import ImageLoader\n"
        'options = dict(data="emoji", other=0)\n'
        "sizes = dict(emoji=1, digits=2)\n"
        f'train_data = dict(type=ImageLoader, batch_size={choices}[options["data"]] + sizes.get(options["other"], 0))\n'
    )
    assert config.load(page, options={"data": "digits"}).to_dict()["train_data"]["batch_size"] == 2
    for wrong in ("digit", 7):
        expected = rf"page.py:4: options.data: expected one of 'emoji', 'digits', got {wrong!r}$"
        with pytest.raises(ConfigError, match=expected):
            config.load(page, options={"data": wrong})
    page.write_text(page.read_text().replace('options["data"]', '{}["lost"]'))
    with pytest.raises(ConfigError, match=r"page.py:4: KeyError: 'lost'$"):
        config.load(page)


def test_moved_weights_are_named_by_their_part_or_one_by_one() -> None:
    tree = {
        "tokenizer": {"type": "vq.tokenizers.pretrained_tokenizer", "weights": ["a", "b"]},
        "parts": [{"type": "vq.quantizers.FileInit", "path": "c"}],
    }
    moved = config.with_weights(tree, {"tokenizer.weights[1]": "x", "parts[0]": "y"})
    assert moved["tokenizer"]["weights"] == ["a", "x"]
    assert moved["parts"] == [{"type": "vq.quantizers.FileInit", "path": "y"}]
    assert tree["parts"][0]["path"] == "c"
    for key, message in {
        "tokenizer": r"expected one of 2 weights, such as tokenizer.weights\[0\]",
        "parts[1]": "the config has no such place",
        "tokenizer.type": "expected a part that takes weights, or its weights",
    }.items():
        with pytest.raises(ConfigError, match=message):
            config.with_weights(tree, {key: "x"})


def test_modules_of_the_standard_library_are_imported(page: Path) -> None:
    page.write_text(
        page.read_text().replace("from math import prod", "import os.path\nfrom math import prod")
    )
    edited(page, "batch_size=8", "batch_size=len(os.path.join('a', 'b'))")
    assert config.load(page).to_dict()["train_data"]["batch_size"] == 3


def test_the_line_is_that_of_the_key_that_a_message_is_about(page: Path) -> None:
    text = page.read_text().replace("batch_size=8", "batch_sise=8")
    line = text[: text.index("batch_sise")].count("\n") + 1
    page.write_text(text)
    with pytest.raises(ConfigError, match=rf"page.py:{line}: train_data: "):
        config.load(page)
    tree = ast.parse(text)
    assert line_of(tree, "train_data: unknown argument 'batch_sise'") == f":{line}"
    assert line_of(tree, "train_data: no argument of this name") == f":{line - 3}"
    assert line_of(tree, "A message that begins with no place.") == ""
