"""A page that starts from another one, and gives only what differs.

The first statement below the docstring names the base:

    _base_ = "8192_imagenet_ddp.py"

    options = dict(codebook_size=1024)
    train_step = dict(weights=dict(adversarial=0.75))

1. An option of the base gets another default. `--config-options` sets it as on the base itself.
2. A dict without `type` changes the keys that it names, at any depth; the other keys stay.
3. Everything else replaces what the base has at that place: a number, a list, and also a dict with a `type`, because
   that describes a part completely.

So the page alone says whether something is changed or replaced, whatever the base holds. A key that the base does not
have is added, and is checked as on any page. A single key cannot be removed; give the part with its `type` instead.

The base is a page beside this one (`"name.py"`) or one that comes with vq (`"folder/name.py"`), and has no base itself.
It runs on its own: neither page sees the variables of the other.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vq.config.checking import SECTIONS, Tree
from vq.config.files import packaged_pages, read_text
from vq.config.lines import deepest_line, place_of
from vq.config.pages import BASE, Page
from vq.errors import ConfigError
from vq.text import shown, suggest

_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?\.py")


@dataclass(frozen=True, slots=True)
class LoadedPage:
    """What a page describes, its base included.

    Attributes:
        sections: Plain data.
        pages: The page, and its base if it has one.
    """

    sections: Tree
    pages: tuple[Page, ...]

    def where(self, error: ConfigError, overrides: Iterable[str] = ()) -> str:
        """The file that an error is about, with its line, or the override that it is about."""
        message, place = str(error), place_of(str(error))
        page = self.pages[0].file
        if message.startswith("override "):
            return str(page)
        for key in overrides:
            if f"{place}.".startswith((f"{key[1:]}.", f"{key[1:]}[")):
                return f"{page}: override {key}"
        found = [(*deepest_line(each.tree, message), each.file) for each in self.pages]
        depth, line, file = max(found, key=lambda each: each[0])  # the page itself, if both say it
        if depth == 0:
            return str(page)
        return f"{page}:{line}" if file == page else f"{page}: in its base {file}:{line}"


def load_page(file: Path, text: str, options: Mapping[str, Any]) -> LoadedPage:
    """Runs a page and its base.

    Args:
        file: The path of the page.
        text: Its source.
        options: Values for options that the page or its base declares.

    Raises:
        ConfigError: With the file and the line, if one of the pages cannot be used, or no page has such an option.
    """
    page = Page(file, text)
    base = base_of(page)
    names = page.options if base is None else [*dict.fromkeys((*page.options, *base.options))]
    for name in options:
        if name not in names:
            hint = suggest(name, names) if names else "; it declares none (options = dict(...))"
            raise ConfigError(f"{file}: the config has no option {name!r}{hint}")
    if base is None:
        return LoadedPage(page.run(options)[0], (page,))
    own = {name: value for name, value in options.items() if name in page.options}
    changes, defaults = page.run(own, base.options)
    values = {name: value for name, value in {**defaults, **options}.items() if name in base.options}
    tree = merged(base.run(values)[0], changes)
    return LoadedPage({name: tree[name] for name in SECTIONS if name in tree}, (page, base))


def base_of(page: Page) -> Page | None:
    """The page that another one starts from, or None.

    Raises:
        ConfigError: If there is no such page, or it has a base itself.
    """
    name = page.base
    if name is None:
        return None
    place = f"{page.file}:{page.line(BASE)}: {BASE}"
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{place}: expected a page beside this one (name.py) or one that comes with vq (folder/name.py), "
            f"got {shown(name)}"
        )
    folder, pattern = (packaged_pages(), "*/*.py") if "/" in name else (page.file.parent, "*.py")
    file = folder / name
    if not file.is_file():
        complete = page.file.with_name("config.json")
        known = sorted(str(p.relative_to(folder)) for p in folder.glob(pattern) if p != page.file)
        cure = f"; {complete} needs no base" if complete.is_file() else suggest(name, known)
        raise ConfigError(f"{place}: there is no page {file}{cure}")
    base = Page(file, read_text(file))
    if base.base is not None:
        raise ConfigError(
            f"{place}: {file} starts from {base.base!r} itself; expected a page without a base, so start from that "
            f"one and repeat what differs"
        )
    return base


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """A copy of `base` with changes: a dict without `type` changes the keys it names, all else replaces.

    Example:
        >>> merged({"lr": 1, "net": {"type": "A", "depth": 2}}, {"net": {"depth": 3}})
        {'lr': 1, 'net': {'type': 'A', 'depth': 3}}
        >>> merged({"net": {"type": "A", "depth": 2}}, {"net": {"type": "A"}})
        {'net': {'type': 'A'}}
    """
    tree = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        if isinstance(value, Mapping) and "type" not in value and isinstance(old, Mapping):
            tree[key] = merged(old, value)
        else:
            tree[key] = value
    return tree
