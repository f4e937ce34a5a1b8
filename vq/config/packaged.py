"""The pages that come with vq, by name: `fsq/1000_emoji` is `configs/fsq/1000_emoji.py`."""

import ast
from pathlib import Path

from vq.config.files import packaged_pages
from vq.errors import ConfigError
from vq.text import suggest

SUFFIXES = (".py", ".json")


def names() -> list[str]:
    """The names of all pages that come with vq, sorted."""
    folder = packaged_pages()
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.glob("*/*.py"))


def titles() -> dict[str, str]:
    """The first line of each page's docstring, by the name of the page."""
    return {name: title(packaged_pages() / f"{name}.py") for name in names()}


def title(page: Path) -> str:
    """The first line of a page's docstring; the page does not run."""
    docstring = ast.get_docstring(ast.parse(page.read_bytes())) or ""
    return docstring.partition("\n")[0]


def find_config(config: str | Path) -> Path:
    """The file that CONFIG means: the file of this path if there is one, or else a page that comes with vq.

    Args:
        config: `configs/fsq/1000_emoji.py`, `work_dirs/NAME/config.json`, `fsq/1000_emoji`.

    Raises:
        ConfigError: If a word without an ending is neither a file nor the name of a page.
    """
    word, file = str(config), Path(config)
    if word.startswith("zoo:"):
        raise ConfigError(
            f"CONFIG {word!r}: is the name of a published model, not of a page; give it as a NAME or as weights. The "
            f"page zoo/imagenet takes it as it_state_dict::{word}"
        )
    known = names()
    if not file.is_file() and word in known:
        return packaged_pages() / f"{word}.py"
    if file.exists():
        return file
    if file.suffix not in SUFFIXES:
        near = suggest(word, known).partition("; valid here")[0].rstrip("?")
        raise ConfigError(
            f"CONFIG {word!r}: there is no such file, and no page of this name comes with vq{near}; "
            f"`vq configs` lists the pages"
        )
    name = file.with_suffix("").as_posix().removeprefix("./").removeprefix("configs/")
    if name in known:
        raise ConfigError(f"{word}: there is no such file; a page that comes with vq is named {name!r}")
    return file  # `read_text` says what is beside it
