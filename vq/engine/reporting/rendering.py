"""Fills templates of HTML pages with text from outside: names of files and classes, configs, logs."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vq.text import printable, without_secrets


def render(template: Path, **values: Any) -> str:
    """Fills a template. Whatever it shows is text: control characters and the characters of HTML are escaped.

    Args:
        template: The file of the template, for jinja2.
        **values: What it uses; `markupsafe.Markup` is inserted as it is.

    Raises:
        UndefinedError: If the template uses a value that is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_as_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)


def _as_text(value: Any) -> Any:
    """Text without control characters and secrets, which jinja2 then escapes; other values have neither."""
    return (
        without_secrets(printable(value))
        if isinstance(value, str) and not isinstance(value, Markup)
        else value
    )
