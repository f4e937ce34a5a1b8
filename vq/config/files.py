"""The files of a config: their text, JSON that may come from anywhere, and copies that no later file overwrites."""

import codecs
import json
from pathlib import Path
from typing import Any

from vq.errors import ConfigError
from vq.files import write_atomically
from vq.text import shown, suggest

MAX_CHARACTERS = 4_000_000
"""The longest JSON that is read; the project's longest config has 20 thousand characters."""


def packaged_pages() -> Path:
    """The folder of the pages that come with vq: in the package of an installed wheel, beside it in a clone."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def read_text(path: str | Path) -> str:
    """The text of a config file.

    Raises:
        ConfigError: If there is no such file, its name does not end in .py or .json, or it is not UTF-8.
    """
    file = Path(path)
    if not file.is_file():
        siblings = [str(p) for p in sorted(file.parent.glob("*.py"))] if file.parent.is_dir() else []
        what = "is a folder, expected a config (.py or .json)" if file.is_dir() else "there is no such config"
        raise ConfigError(f"{path}: {what}{suggest(str(path), siblings)}")
    if file.suffix not in (".py", ".json"):
        raise ConfigError(f"{path}: expected a page (.py) or a resolved config (.json)")
    try:
        content = file.read_bytes()
        if content.startswith(codecs.BOM_UTF8) and file.suffix == ".json":
            raise ConfigError(f"{path}: begins with a byte order mark; save it as UTF-8 without one")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def parse_json(text: str, place: str) -> Any:
    """The value of a JSON text.

    Raises:
        ConfigError: If it is cut or not JSON, holds a key twice, or is nested too deeply.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"{place}: expected at most {MAX_CHARACTERS:,} characters of JSON, got {len(text):,}"
        )
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place}:{error.lineno}: not valid JSON, or cut: {error.msg}") from None
    except RecursionError:
        raise ConfigError(f"{place}: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None


def write_and_keep(path: Path, text: str) -> None:
    """Writes a file; an existing file with other content is renamed, not lost."""
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return
        taken = len(list(path.parent.glob(f"{path.name}.*")))
        path.rename(path.with_name(f"{path.name}.{taken + 1}"))
    write_atomically(path, text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(repeated)} stands twice in one object")
    return found
