"""The pages of configs/, each loaded once however many tests look at it."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from vq import config


@cache
def _loaded(page: Path) -> dict[str, Any]:
    return config.load(page).to_dict()


def tree_of(page: Path) -> dict[str, Any]:
    """Returns the resolved config of a page, with its default options."""
    return deepcopy(_loaded(page))
