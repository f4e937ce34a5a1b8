"""Names from outside (files, classes, keys, configs) as text that is safe to show or to use as a file name."""

import difflib
import hashlib
import re
from collections.abc import Iterable

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
_HASHED = re.compile(r".*-[0-9a-f]{10}")
_MAX_NAME = 120


def printable(text: str) -> str:
    r"""The text with control characters and bytes that are not UTF-8 escaped, so that it fits on one line anywhere.

    Python represents a file name's undecodable bytes by lone surrogates, which cannot be encoded as UTF-8; here they
    become `\udce4`. Line breaks, terminal escapes and bidirectional controls are escaped too.

    Example:
        >>> printable("a\nb")
        'a\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def file_name(key: str) -> str:
    """A file name for a key, without an ending: the same every time, and different for different keys.

    A key that is a plain name is its own file name. Any other has its special characters replaced by `-`, is cut to
    120 characters, and gets the first ten digits of its SHA-256.

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
    r"""Text that Markdown shows as it is: no table cell, tag, link or formula begins in it.

    Example:
        >>> markdown("ema_l2"), markdown("a|b <i>")
        ('ema_l2', 'a\\|b \\<i\\>')
    """
    return re.sub(r"[\\`*\[\]<>|$~&#!]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", printable(text))


def spreadsheet_cell(text: str) -> str:
    """Text that a spreadsheet takes for text: before what would begin a formula stands an apostrophe.

    Example:
        >>> spreadsheet_cell("=1+1"), spreadsheet_cell("fsq")
        ("'=1+1", 'fsq')
    """
    shown = printable(text)
    return f"'{shown}" if shown.lstrip()[:1] in tuple("=+-@") else shown


def shown(value: object) -> str:
    """A value from outside as short printable text for a message."""
    text = printable(repr(value))
    return text if len(text) <= 120 else f"{text[:117]}..."


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the valid name nearest to `name`, or the list of valid names."""
    known = list(known)
    near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; valid here: {', '.join(known)}" if known else ""
