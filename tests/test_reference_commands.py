"""docs/reference_commands.md: what it lists as available is there, and what it lists as missing is not.

`tests/test_docs.py` parses its command lines and loads their pages.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "reference_commands.md").read_text()


def named(language: str, pattern: str) -> set[str]:
    """What the code blocks of a language name: `bash` blocks run here, `text` blocks quote the documents."""
    return {
        found
        for block in re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)
        for found in re.findall(pattern, block)
    }


PAGE = r"configs/[\w/]+\.py"
AVAILABLE = named("bash", PAGE)
MISSING = named("text", PAGE) - AVAILABLE


@pytest.mark.parametrize("page", sorted(AVAILABLE))
def test_each_page_of_a_line_that_runs_exists(page: str) -> None:
    assert (ROOT / page).is_file()


@pytest.mark.parametrize("page", sorted(MISSING))
def test_each_page_that_is_listed_as_missing_is_missing(page: str) -> None:
    assert not (ROOT / page).exists(), "this page exists now: move its line to those that run"


def test_each_script_of_a_line_that_runs_exists() -> None:
    scripts = named("bash", r"tools/\w+\.\w+")
    assert len(scripts) > 4
    assert all((ROOT / script).is_file() for script in scripts)


def test_the_lists_are_not_empty() -> None:
    assert len(AVAILABLE) >= 11
    assert {"configs/vqkd/clip_8192_imagenet_ddp.py", "configs/decoder/vqgan.py"} <= MISSING
