"""Converts untrusted names (of files, classes, config keys) to text that is safe to print or to use in paths."""

import difflib
import hashlib
import re
from collections.abc import Iterable

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
_HASHED = re.compile(r".*-[0-9a-f]{10}")
_MAX_NAME = 120


def printable(text: str) -> str:
    r"""Escapes control characters and bytes that are not UTF-8, so that the text can be printed on one line anywhere.

    Python represents undecodable bytes of a file name by lone surrogates, which cannot be encoded as UTF-8. They are
    escaped, such as `\udce4`, and so are line breaks, terminal escapes and bidirectional controls.

    Args:
        text: The text.

    Example:
        >>> printable("a\nb")
        'a\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def file_name(key: str) -> str:
    """Converts a key to a file name without an ending; different keys have different file names.

    A key that is a plain name is not changed. In any other key, special characters are replaced by `-`; the key is
    truncated to 120 characters, and the first ten digits of its SHA-256 are appended.

    Args:
        key: The key of an image, or any other text.

    Example:
        >>> file_name("cat_1"), file_name("a/b.png")
        ('cat_1', 'a-b.png-88f7ec7982')
    """
    if _PLAIN_NAME.fullmatch(key) and len(key) <= _MAX_NAME and not _HASHED.fullmatch(key):
        return key
    digest = hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).hexdigest()[:10]
    plain = re.sub(r"[^A-Za-z0-9_.+=-]", "-", key)[:_MAX_NAME].lstrip("-.")
    return f"{plain or 'unnamed'}-{digest}"


def markdown(text: str) -> str:
    r"""Escapes text for Markdown, so that it contains no table cell, tag, link or formula.

    Args:
        text: The text.

    Example:
        >>> markdown("ema_l2"), markdown("a|b <i>")
        ('ema_l2', 'a\\|b \\<i\\>')
    """
    return re.sub(r"[\\`*\[\]<>|$~&#!]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", printable(text))


def spreadsheet_cell(text: str) -> str:
    """Escapes text for a spreadsheet: an apostrophe precedes text that would begin a formula.

    Args:
        text: The text.

    Example:
        >>> spreadsheet_cell("=1+1"), spreadsheet_cell("fsq")
        ("'=1+1", 'fsq')
    """
    shown = printable(text)
    return f"'{shown}" if shown.lstrip()[:1] in tuple("=+-@") else shown


def shown(value: object) -> str:
    """Returns the `repr` of an untrusted value as printable text of at most 120 characters, for a message."""
    text = printable(repr(value))
    return text if len(text) <= 120 else f"{text[:117]}..."


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns the end of an error message, which suggests the most similar valid name or lists all valid names.

    Args:
        name: The invalid name.
        known: The valid names.
    """
    known = list(known)
    near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; valid here: {', '.join(known)}" if known else ""
