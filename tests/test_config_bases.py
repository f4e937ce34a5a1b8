"""Pages that start from another one: what is changed, what is replaced, and what is refused."""

import json
from pathlib import Path

import pytest

from vq import config
from vq.config.bases import merged
from vq.errors import ConfigError
from vq.slots import CodeName

BASE = '''"""The base."""

from torch.optim import AdamW

from vq.data import ImageLoader, ProceduralDataset, RandomHorizontalFlip
from vq.engine import ReconstructionStep
from vq.losses import L1Loss
from vq.quantizers import FiniteScalarQuantizer

options = dict(image_size=32, levels=[8, 5])
secret = 3

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ProceduralDataset, num_images=secret, image_size=options["image_size"]),
    transforms=[dict(type=RandomHorizontalFlip)],
    batch_size=8,
)
tokenizer = dict(
    type="vq.tokenizers.ImageTokenizer", quantizer=dict(type=FiniteScalarQuantizer, levels=options["levels"])
)
train_step = dict(
    type=ReconstructionStep,
    losses=dict(l1=dict(type=L1Loss)),
    weights=dict(l1=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1e-3, betas=(0.9, 0.99)),
)
'''
HEAD = '"""A page."""\n\n_base_ = "base.py"\n\n'


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "base.py").write_text(BASE)
    return tmp_path / "page.py"


def tree_of(page: Path, body: str, **changes: object) -> dict:
    page.write_text(HEAD + body)
    return config.load(page, **changes).to_dict()


def test_a_page_that_changes_nothing_is_its_base(page: Path) -> None:
    assert tree_of(page, "") == config.load(page.with_name("base.py")).to_dict()


@pytest.mark.parametrize(
    ("body", "place", "value"),
    [
        ("train_data = dict(batch_size=4)", ("train_data", "batch_size"), 4),
        ("train_step = dict(optimizer=dict(lr=1.0))", ("train_step", "optimizer", "lr"), 1.0),
        (
            "train_step = dict(optimizer=dict(fused=True))",
            ("train_step", "optimizer", "fused"),
            True,
        ),  # added
        ("train_step = dict(weights=dict(l1=0.5))", ("train_step", "weights"), {"l1": 0.5, "quantizer": 1.0}),
        ("train_data = dict(transforms=[])", ("train_data", "transforms"), []),
        (
            "from torch.optim import SGD\ntrain_step = dict(optimizer=dict(type=SGD))",
            ("train_step", "optimizer"),
            {"type": "torch.optim.SGD"},
        ),
        (  # the same type: the part is replaced too, so that the page alone says what happens
            "from torch.optim import AdamW\ntrain_step = dict(optimizer=dict(type=AdamW))",
            ("train_step", "optimizer"),
            {"type": "torch.optim.AdamW"},
        ),
        ("options = dict(levels=[4, 4, 4])", ("tokenizer", "quantizer", "levels"), [4, 4, 4]),
        ("trainer = dict(type='vq.engine.Trainer', max_steps=3)", ("trainer", "max_steps"), 3),
    ],
)
def test_what_the_page_says_changes_or_replaces_what_the_base_has(
    page: Path, body: str, place: tuple[str, ...], value: object
) -> None:
    expected = config.load(page.with_name("base.py")).to_dict()
    found = tree_of(page, body)
    assert get(found, place) == value
    # Nothing else differs.
    if place[0] in expected:
        set_(expected, place, value)
    else:
        expected["trainer"] = found["trainer"]
    assert found == expected


def get(tree: dict, place: tuple[str, ...]) -> object:
    return tree if not place else get(tree[place[0]], place[1:])


def set_(tree: dict, place: tuple[str, ...], value: object) -> None:
    for key in place[:-1]:
        tree = tree[key]
    tree[place[-1]] = value


def test_sections_keep_the_order_of_a_page(page: Path) -> None:
    tree = tree_of(page, "val_data = dict(type='vq.data.ImageLoader', batch_size=2)")
    assert list(tree) == ["train_data", "val_data", "tokenizer", "train_step"]


def test_merging_leaves_both_sides_as_they_were() -> None:
    base, changes = {"a": {"type": "X", "b": {"c": 1}}}, {"a": {"b": {"d": 2}}}
    assert merged(base, changes) == {"a": {"type": "X", "b": {"c": 1, "d": 2}}}
    assert base == {"a": {"type": "X", "b": {"c": 1}}}
    assert changes == {"a": {"b": {"d": 2}}}
    assert merged({"a": 1}, {"a": {"b": 2}}) == {
        "a": {"b": 2}
    }  # nothing to change: the dict replaces the number


def test_the_command_line_has_the_last_word_on_options_and_keys(page: Path) -> None:
    body = "options = dict(levels=[4, 4])\ntrain_data = dict(batch_size=4)"
    tree = tree_of(
        page, body, options={"levels": [3, 3], "image_size": 16}, overrides={".train_data.batch_size": 2}
    )
    assert tree["tokenizer"]["quantizer"]["levels"] == [3, 3]
    assert tree["train_data"]["dataset"]["image_size"] == 16
    assert tree["train_data"]["batch_size"] == 2


def test_a_page_reads_an_option_that_it_shares_with_its_base(page: Path) -> None:
    body = "options = dict(image_size=64)\ntrain_data = dict(batch_size=options['image_size'])"
    for options, size in (({}, 64), ({"image_size": 16}, 16)):
        data = tree_of(page, body, options=options)["train_data"]
        assert (data["batch_size"], data["dataset"]["image_size"]) == (size, size)


def test_a_page_may_have_options_of_its_own(page: Path) -> None:
    body = "options = dict(batch=4)\ntrain_data = dict(batch_size=options['batch'])"
    assert tree_of(page, body, options={"batch": 2})["train_data"]["batch_size"] == 2


def test_a_base_may_be_a_page_that_comes_with_vq(page: Path) -> None:
    page.write_text('_base_ = "fsq/1000_emoji.py"\ntrainer = dict(log_every=7)\n')
    packaged = Path(__file__).parents[1] / "configs/fsq/1000_emoji.py"
    tree = config.load(packaged).to_dict()
    tree["trainer"]["log_every"] = 7
    assert config.load(page).to_dict() == tree


def test_the_resolved_config_stands_alone(page: Path, tmp_path: Path) -> None:
    tree = tree_of(page, "train_data = dict(batch_size=4)")
    run = tmp_path / "run"
    run.mkdir()
    config.save(config.load(page), run)
    assert (run / "config.py").read_text() == page.read_text()
    assert json.loads((run / "config.json").read_text()) == tree == config.load(run / "config.json").to_dict()
    with pytest.raises(
        ConfigError, match=r"config.py:3: _base_: there is no page .*base.py; .*config.json needs no base"
    ):
        config.load(run / "config.py")


def test_the_page_of_a_pretrained_tokenizer_may_have_a_base(page: Path) -> None:
    tokenizer = tree_of(page, "options = dict(levels=[4, 4])")["tokenizer"]
    outer = page.with_name("outer.py")
    outer.write_text(
        "from vq.tokenizers import pretrained_tokenizer\n"
        f"tokenizer = dict(type=pretrained_tokenizer, weights=['w'], config={str(page)!r})\n"
    )
    assert config.load(outer).to_dict()["tokenizer"]["tokenizer"] == tokenizer
    # An override may change a place of that page, which is written out by then.
    place, changed = ".tokenizer.tokenizer", {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [2]}
    overrides = {f"{place}.quantizer": changed, ".tokenizer.weights": ["v"]}
    found = config.load(outer, overrides=overrides).to_dict()["tokenizer"]
    assert found == {
        "type": "vq.tokenizers.pretrained_tokenizer",
        "weights": ["v"],
        "tokenizer": {**tokenizer, "quantizer": changed},
    }
    assert all(type(node["type"]) is CodeName for node in config.nodes(found))
    with pytest.raises(
        ConfigError, match=r"override .tokenizer.tokenizer.quantizr: tokenizer.tokenizer has no key"
    ):
        config.load(outer, overrides={f"{place}.quantizr": changed})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "train_data = dict(batch_sise=4)",
            r"page.py:5: train_data: .*\n.*'batch_sise'; did you mean 'batch_size'",
        ),
        (
            "\ntrain_step = dict(\n    optimizer=dict(lrr=1.0))",
            r"page.py:7: train_step.optimizer: .*\n.*'lrr'",
        ),
        ("train_data = dict(batch_size='4')", "page.py:5: train_data.batch_size: expected int"),
        (
            "shared = dict(\n    batch_size='4')\ntrain_data = shared",
            "page.py:6: train_data.batch_size: expected int",
        ),
        (
            "train_dat = dict(batch_size=4)",
            "page.py:5: 'train_dat' is not a section.*did you mean 'train_data'",
        ),
        ("train_data = 4", r"page.py:5: train_data: expected dict\(type="),
        (
            "\ntrain_data = dict(batch_size={4})",
            "page.py:6: train_data.batch_size: a config holds plain data",
        ),
        ("trainer = dict(max_steps=4)", r"page.py:5: trainer: expected dict\(type="),
        (
            "options = dict(levles=[4])",
            r"page.py:5: the page does not read its option 'levles', and its base base.py has no such option; "
            "did you mean 'levels'",
        ),
        ("train_data = dict(batch_size=secret)", "page.py:5: NameError"),
        (
            "options = dict(image_size='x')",
            r"page.py: in its base .*base.py:\d+: train_data.dataset.image_size: exp",
        ),
    ],
)
def test_an_error_names_the_page_that_makes_it_and_the_line(page: Path, body: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tree_of(page, body)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "batch_size=8",
            "batch_sise=8",
            r"page.py: in its base .*base.py:\d+: train_data: .*\n.*'batch_sise'",
        ),
        ("import L1Loss", "import L1Los", r"base.py:\d+: vq.losses has no 'L1Los'"),
        ("secret = 3", "secret = x", r"base.py:\d+: NameError"),
        ("secret = 3", "spare = secret = 3", r"base.py:\d+: 'spare' is not a section"),
    ],
)
def test_an_error_of_the_base_names_the_base(page: Path, old: str, new: str, message: str) -> None:
    base = page.with_name("base.py")
    assert old in BASE
    base.write_text(BASE.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        tree_of(page, "train_step = dict(weights=dict(l1=0.5))")


def test_an_override_is_named_instead_of_a_line(page: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"page.py: override .train_data.batch_size: train_data.batch_size: expected"
    ):
        tree_of(page, "", overrides={".train_data.batch_size": "4"})
    with pytest.raises(ConfigError, match=r"page.py: override .train_data.batch_sise: train_data has no key"):
        tree_of(page, "", overrides={".train_data.batch_sise": 4})


def test_an_option_that_neither_page_has_is_refused(page: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"page.py: the config has no option 'imagesize'; did you mean 'image_size'"
    ):
        tree_of(page, "", options={"imagesize": 4})


@pytest.mark.parametrize(
    "text",
    [
        'train_data = dict(batch_size=4)\n_base_ = "base.py"\n',
        '_base_ = "base.py"\n_base_ = "base.py"\n',
        '_base_ = ["base.py"]\n',
        '_base_ = "base" + ".py"\n',
        '_base_: str = "base.py"\n',
        'if True:\n    _base_ = "base.py"\n',
    ],
)
def test_a_base_is_named_once_and_first(page: Path, text: str) -> None:
    page.write_text(text)
    with pytest.raises(ConfigError, match=r"page.py:\d: expected _base_ once, as the first statement"):
        config.load(page)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd.py",
        "../base.py",
        "a/../base.py",
        "a/b/c.py",
        "base",
        "base.json",
        "",
        ".py",
        "a\\b.py",
        "~/x.py",
        "a\n.py",
    ],
)
def test_a_base_is_a_page_beside_or_one_that_comes_with_vq(page: Path, name: str) -> None:
    page.write_text(f"_base_ = {name!r}\n")
    with pytest.raises(
        ConfigError, match=r"page.py:1: _base_: expected a page beside this one \(name.py\) or one"
    ):
        config.load(page)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bsae.py", r"there is no page .*bsae.py; did you mean 'base.py'"),
        ("fsq/1000_emojy.py", r"there is no page .*1000_emojy.py; did you mean 'fsq/1000_emoji.py'"),
        ("page.py", "page.py starts from 'page.py' itself; expected a page without a base"),
        (
            "llamagen/c2i_L_imagenet_ddp.py",
            "starts from 'c2i_B_imagenet_ddp.py' itself; expected a page without a base",
        ),
    ],
)
def test_a_base_that_is_not_there_or_has_a_base_is_refused(page: Path, name: str, message: str) -> None:
    page.write_text(f"_base_ = {name!r}\n")
    with pytest.raises(ConfigError, match=rf"page.py:1: _base_: .*{message}"):
        config.load(page)


def test_json_has_no_base(page: Path) -> None:
    file = page.with_name("page.json")
    file.write_text('{"_base_": "base.py"}')
    with pytest.raises(ConfigError, match="unknown section '_base_'"):
        config.load(file)
