"""How often each code occurs in a token store of a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from vq.data.stores.token_store import TokenStore, TokenStoreError

MOST_IMAGES = 10_000
MOST_CODES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """The counts of the codes of a store.

    Attributes:
        place: The store below the run folder.
        counts: Code -> how often it occurs.
        num_images: How many images were read.
        num_stored: How many images the store holds.
    """

    place: str
    counts: Int64[Tensor, "codes"]
    num_images: int
    num_stored: int


def histograms(folder: Path, notes: list[str]) -> Iterator[Histogram]:
    """Counts the codes of the token stores of a run; at most 10,000 images of each, at equal distances.

    Args:
        folder: The run folder.
        notes: Receives what cannot be counted.
    """
    for split in ("val", "train"):
        place = f"tokens/{split}"
        if not (folder / place).is_dir():
            continue
        try:
            yield _count(TokenStore(folder / place), place)
        except (TokenStoreError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            notes.append(f"{place} cannot be counted: {error}")


def _count(store: TokenStore, place: str) -> Histogram:
    size = int(store.manifest["vocabulary_size"])
    if size > MOST_CODES:
        raise TokenStoreError(f"{size:,} codes are more than {MOST_CODES:,}")
    counts = torch.zeros(size, dtype=torch.int64)
    numbers = range(0, len(store), max(1, -(-len(store) // MOST_IMAGES)))
    for number in numbers:
        indices = store.read(number).reshape(-1)
        counts += torch.bincount(indices, minlength=size)
    return Histogram(place=place, counts=counts, num_images=len(numbers), num_stored=len(store))
