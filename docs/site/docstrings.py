"""Griffe extension: docstrings as they are written here, in the form that the reference needs."""

import re
from typing import Any

import griffe
from markdown_style import separated

# "Source: Name, year," with an indented second line would be taken for a box with that title.
LABELLED = re.compile(r"^(Source|Differs from the source): *(.*(?:\n +\S.*)*)", re.M)


class Docstrings(griffe.Extension):
    """Shows `Example:` as code, and where a formula comes from as paragraphs of their own."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Edits the docstring of one object, before it is parsed."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = separated(LABELLED.sub(_paragraph, text))


def _paragraph(labelled: re.Match[str]) -> str:
    return f"\n**{labelled[1]}:** " + re.sub(r"\n +", "\n", labelled[2]) + "\n"
