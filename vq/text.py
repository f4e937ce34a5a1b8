"""Converts untrusted names (of files, classes, config keys) to text that is safe to print or to use in paths."""

import difflib
import hashlib
import os
import re
from collections.abc import Iterable

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
_HASHED = re.compile(r".*-[0-9a-f]{10}")
_MAX_NAME = 120
_HIDDEN = "***"
_SECRET_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSW")
_SHORTEST_SECRET = 8  # characters
# Tokens that services begin with a mark of their own, and a user with a password in an address.
_MARKED_SECRET = re.compile(
    r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}"
    r"|(?<=://)[^\s/@:\"']{0,200}:[^\s/@\"']{1,200}(?=@)"
)
# The value of `api_key=...`, `"password": "..."` or `--token ...`; not of `num_tokens=...`, `class_token=...` or
# `key: ...`. A match begins at the first character of a name, and repetitions are bounded, so that no text takes long.
_NAMED_SECRET = re.compile(
    r"""(
        (?<![\w.-])
        (?: (?: [\w.-]{0,60} [_.-] )? (?i: (?:api|access|secret|private)[_-]?key | secret | passw(?:or)?d )
          | (?: [\w.-]{0,60} [_.-] )? (?i: (?:api|access|auth|hf|hub|session)[_-]?token )
          | (?: [\w.-]{0,60} \. )? token | [A-Z0-9_]{0,60}_(?:KEY|TOKEN)
        )
        ["']? \s{0,3} [=:] \s{0,3} ["']?
      | (?<!\S) --[\w-]{0,60} (?: key|token|secret|password ) (?: = | \s{1,3} ) ["']?
    ) (?!\d+\b) [^\s"',;()\[\]{}*]{8,}""",
    re.VERBOSE,
)


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


def without_secrets(text: str) -> str:
    """Replaces what looks like a key, a token or a password by `***`, in a text that is stored or shown.

    These are the values of environment variables with KEY, TOKEN, SECRET or PASSW in their name, of arguments and
    settings with such names, tokens with the mark of a service (`hf_...`, `sk-...`), and passwords in addresses.

    Args:
        text: The text, of one or more lines.

    Example:
        >>> without_secrets("--api-key 0123456789ab s3://user:secret@host/data num_tokens=100000000")
        '--api-key *** s3://***@host/data num_tokens=100000000'
    """
    for name, value in os.environ.items():
        is_secret = (
            _SECRET_VARIABLE.search(name.upper()) and not value.startswith("/") and not value.isdecimal()
        )
        if is_secret and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, _HIDDEN)
    return _NAMED_SECRET.sub(rf"\1{_HIDDEN}", _MARKED_SECRET.sub(_HIDDEN, text))


def holds_secret(name: str, value: str) -> bool:
    """Whether a setting looks like a key, a token or a password, by its name or its value.

    Args:
        name: The name of the setting.
        value: Its value.

    Example:
        >>> holds_secret("password", "0123456789ab"), holds_secret("path", "0123456789ab")
        (True, False)
    """
    pair = f"{name}={value}"
    return _NAMED_SECRET.search(pair) is not None or _MARKED_SECRET.search(pair) is not None


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
