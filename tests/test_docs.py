"""What the documents say runs: docstring examples, the README's Python, and the commands' arguments."""

import doctest
import importlib
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import vq
from tools.demo import CONFIG, RUN, save_examples
from vq import config
from vq.__main__ import COMMANDS
from vq.data import read_image
from vq.engine.assembly import make_tokenizer
from vq.tokenizers.checkpoint import save_weights

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [m.name for m in pkgutil.walk_packages(vq.__path__, "vq.")]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S):
            yield page, text


def test_the_readme_loads_encodes_decodes_and_saves_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As typed after `make demo`, whose run is replaced by one without training."""
    tree = config.load(CONFIG).to_dict()
    run = tmp_path / RUN
    save_examples(run / "pictures", 1)
    checkpoint = run / "checkpoints" / "iter_1000"
    checkpoint.mkdir(parents=True)
    save_weights(make_tokenizer(tree).state_dict(), checkpoint / "model.safetensors", tree)
    monkeypatch.chdir(tmp_path)
    text = next(t for p, t in blocks("python") if p.name == "README.md" and "vq.load" in t)
    namespace: dict = {}
    exec(text, namespace)
    assert namespace["image"].shape == read_image("reconstruction.png").shape == (3, 72, 72)
    assert namespace["indices"].shape == (1, 9, 9)
    assert namespace["indices"].max() < 1000


def test_the_two_lines_of_the_readme_run() -> None:
    text = next(t for p, t in blocks("python") if p.name == "README.md" and "FiniteScalarQuantizer" in t)
    namespace: dict = {}
    exec(text, namespace)
    assert namespace["out"].indices.shape == (2, 16, 16)


def command_lines() -> list[tuple[str, list[str]]]:
    lines = []
    for page, text in blocks("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "-m" in words and words[words.index("-m") + 1].startswith("vq."):
                lines.append((page.name, words[words.index("-m") + 1 :]))
            elif words[:1] == ["vq"] and not words[1].startswith("-"):
                lines.append((page.name, [COMMANDS[words[1]].module, *words[2:]]))
    return lines


@pytest.mark.parametrize(
    ("page", "words"), command_lines(), ids=lambda v: " ".join(v) if isinstance(v, list) else v
)
def test_commands_in_the_documents_parse_and_name_what_exists(page: str, words: list[str]) -> None:
    command, *arguments = words
    args = importlib.import_module(command).arguments().parse_args(arguments)
    if getattr(args, "config", None):  # without one, the run's own is used
        from vq import cli, config

        tree = cli.load_config(args).to_dict()
        assert tree[config.trained_section(tree)]


def test_make_targets_in_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for _, text in blocks("bash"):
        for target in re.findall(r"^make (\w+)", text, re.M):
            assert re.search(rf"^{target}:", makefile, re.M), target


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_names_the_wheel_of_this_version() -> None:
    assert re.findall(r"dist/(vq-\S+\.whl)", (ROOT / "README.md").read_text()) == [
        f"vq-{vq.__version__}-py3-none-any.whl"
    ]


def test_ci_runs_what_the_readme_says() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


def test_lines_of_documents_are_short() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    long = [
        f"{page.relative_to(ROOT)}:{number}: {len(line)} characters"
        for page in pages
        for number, line in enumerate(page.read_text().splitlines(), start=1)
        if len(line) > 140
    ]
    assert not long, "\n".join(long)


def test_the_briefs_are_named_in_the_page_of_original_command_lines_only() -> None:
    kinds = ("*.py", "*.md", "*.toml", "*.sh")
    folders = ("vq", "configs", "tools", "benchmarks", "docs")
    files = [*ROOT.glob("*.md"), *(f for d in folders for kind in kinds for f in (ROOT / d).rglob(kind))]
    naming = [f.relative_to(ROOT) for f in files if re.search(r"\bbriefs?\b", f.read_text(), re.I)]
    assert set(map(str, naming)) <= {"docs/reference_commands.md"}
