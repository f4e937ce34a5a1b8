"""Every command line of the original documents: it is parsed, its page is loaded, and the documentation lists it.

`tests/integration/test_reference_runs.py` runs each of them.
"""

import importlib
import re
from functools import cache
from pathlib import Path

import pytest
from reference_lines import DECODER_RUN, LINES, MALFORMED, Line, optional_parts, program, words

from vq import cli, config
from vq.errors import UserError

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "reference_commands.md").read_text()
FORMS = [(line, form) for line in LINES for form in line.forms()]
IDS = [f"{number}-{program(form)[0]}" for number, (_, form) in enumerate(FORMS)]


def pages(form: list[str]) -> list[str]:
    """The pages of configs/ that a line names."""
    return [found for word in form for found in re.findall(r"configs/[\w/]+\.py", word)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pages, and with the page that a training of a decoder leaves in its run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    page = tmp_path / DECODER_RUN / "vqgan.py"
    page.parent.mkdir(parents=True)
    page.write_text(decoder_page())
    return tmp_path


@cache
def decoder_page() -> str:
    tokenizer = {"it_config": str(ROOT / "configs/vqkd/clip_8192_imagenet_ddp.py")}
    tree = config.load(ROOT / "configs/decoder/vqgan.py", options=tokenizer)
    return config.page_text(tree.to_dict())


def test_there_are_as_many_lines_as_in_the_documents() -> None:
    assert len(LINES) == 53
    assert len({line.text for line in LINES}) == 53
    assert [line.text for line in LINES if line.meant] == [MALFORMED]


@pytest.mark.parametrize(("line", "form"), FORMS, ids=IDS)
def test_the_line_is_parsed_and_its_page_is_loaded(line: Line, form: list[str], place: Path) -> None:
    module, given = program(form)
    command = importlib.import_module(module)
    args = command.parsed(given) if hasattr(command, "parsed") else command.arguments().parse_args(given)
    assert all((ROOT / page).is_file() for page in pages(form))
    if ".trainer.callbacks" in " ".join(form):
        assert args.non_strict
        assert args.override == []
    if getattr(args, "config", None) is not None:
        tree = cli.load_config(args, frozen_from=getattr(args, "load_model_from", ())).to_dict()
        assert tree["tokenizer"]
        if line.stage.endswith("decoder"):
            frozen = tree["tokenizer"]["tokenizer"]
            assert frozen["weights"] == args.load_model_from
            assert frozen["tokenizer"]["type"].endswith(".FeatureTokenizer")
            assert frozen.get("strict", True) is not args.non_strict


def test_what_is_in_brackets_is_optional() -> None:
    text = r"vq.val a [--load-from iter_{1..3}0] [--override .b[-1].c:dict\(d=False\)]"
    assert optional_parts(text) == ["[--load-from iter_{1..3}0]", r"[--override .b[-1].c:dict\(d=False\)]"]
    full, plain = Line(text, "").forms()
    assert full[2:6] == ["--load-from", "iter_10", "iter_20", "iter_30"]
    assert full[6:] == ["--override", ".b[-1].c:dict(d=False)"]
    assert plain == ["vq.val", "a"]
    assert words("run -- python x ${image_root}/..") == ["run", "--", "python", "x", "images/.."]


def listed() -> list[str]:
    """The lines in the documentation, each on one line."""
    blocks = re.findall(r"```text\n(.*?)```", TEXT, re.S)
    joined = [re.sub(r"\\\n(?=\S)", "", block) for block in blocks]
    lines = [line for block in joined for line in re.sub(r"\\\n\s+", " ", block).splitlines()]
    return [re.sub(r"\s+", " ", line).strip() for line in lines if line.strip()]


def test_the_documentation_lists_exactly_these_lines() -> None:
    assert sorted(listed()) == sorted(line.text for line in LINES)


# The spellings that only these documents have.


@pytest.mark.parametrize(
    "word",
    [
        ".trainer.callbacks[-1].load_state_dict:dict(strict=False)",
        r".trainer.callbacks[-1].load_state_dict:dict\(strict=False\)",
    ],
)
def test_the_override_of_callbacks_means_non_strict_loading(word: str) -> None:
    parser = importlib.import_module("vq.train").arguments()
    args = parser.parse_args(["x", "fsq/1000_emoji", "--override", ".trainer.max_steps:1", word])
    assert args.override == [".trainer.max_steps:1"]
    given = cli.given_weights(args, ["w"])
    assert (given.allow_missing, given.allow_unexpected) == (".*", ".*")
    args = parser.parse_args(["x", "fsq/1000_emoji", "--allow-missing", "decoder.*"])
    given = cli.given_weights(args, ["w"])
    assert (given.allow_missing, given.allow_unexpected) == ("decoder.*", "")


@pytest.mark.parametrize(
    "word",
    [
        ".trainer.callbacks[-1].load_state_dict:dict(strict=True)",
        ".trainer.callbacks[-1].load_state_dict:dict(strict=False, assign=True)",
        ".trainer.callbacks[-1].load_state_dict:strict",
        ".trainer.callbacks[0].load_state_dict:dict(strict=False)",
        ".trainer.callbacks[-1].interval:1",
        ".trainer.callbacks:None",
    ],
)
def test_no_other_override_of_callbacks_is_accepted(word: str) -> None:
    parser = importlib.import_module("vq.train").arguments()
    with pytest.raises(
        UserError, match=r"a trainer has no callbacks; the only override below .trainer.callbacks is"
    ):
        parser.parse_args(["x", "fsq/1000_emoji", "--override", word])


def test_the_override_of_callbacks_needs_a_command_that_loads_weights() -> None:
    parser = importlib.import_module("vq.fid").arguments()
    with pytest.raises(UserError, match="this command loads no weights of its own; leave it out"):
        parser.parse_args(
            ["imagenet", "--override", ".trainer.callbacks[-1].load_state_dict:dict(strict=False)"]
        )


def test_no_other_override_of_the_validator_is_accepted(place: Path) -> None:
    tokenize = importlib.import_module("vq.tasks.image_tokenization.tokenize")
    with pytest.raises(UserError, match=r"a config has no section validator; only .validator.type::VQIT"):
        tokenize.main(["x", "fsq/1000_emoji", "--override", ".validator.type::VQITRunnerRegistry.Other"])
    with pytest.raises(UserError, match=r"override .validator.type: the config has no key 'validator'"):
        importlib.import_module("vq.tokenize").main(
            ["x", "fsq/1000_emoji", "--override", ".validator.type::VQITRunnerRegistry.Tokenizer"]
        )


def test_the_tokens_are_where_the_documents_look_for_them() -> None:
    tokens_of = importlib.import_module("vq.tasks.image_tokenization.tokenize").tokens_of
    assert str(tokens_of("vqkd_clip_tokenize", train=False)) == "work_dirs/vqkd_clip_tokenize_tokenize/tokens"
    assert str(tokens_of("a/b", train=True)) == "work_dirs/a/b_tokenize_train/tokens"
