"""A config that depends on files outside the run becomes one that stands alone."""

from collections.abc import Mapping
from typing import Any

from vq import config
from vq.generators.vocabulary import with_sizes
from vq.tokenizers.pretrained import record_weights


def recorded(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Records the SHA-256 of all weights outside the run, and the sizes that the generator leaves open.

    Args:
        tree: The sections of a page, as plain data. Weights that are missing are left as they are; `build` raises for
            them.

    Raises:
        ConfigError: If a size is left open, and the data that decide it cannot be read.
    """
    found: dict[str, Any] = record_weights(tree)
    sizes = config.open_sizes(found)
    return with_sizes(found, sizes) if sizes else found
