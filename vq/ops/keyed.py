"""Randomness that is a pure function of a key: equal keys give equal numbers on every worker and rank."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stable_hash(*key: int | str) -> int:
    """Returns a 64-bit number that depends on the key alone, on every machine and in every process.

    Python's own `hash` of a string changes from process to process.

    Args:
        *key: Integers and strings; `(1, 23)`, `(12, 3)` and `("1", 23)` are different keys.

    Raises:
        TypeError: If a part of the key is neither an `int` nor a `str`.

    Example:
        >>> stable_hash("sample", 0, 7) == stable_hash("sample", 0, 7)
        True
        >>> stable_hash(1, 23) == stable_hash(12, 3)
        False
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in key:
        if type(part) not in (int, str):  # bool is a subclass of int, but True and 1 are different parts
            raise TypeError(f"key: expected int and str parts, got {part!r}; convert it first")
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little")


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seeds PyTorch's global CPU generator by the key, and restores its state at the end, also after an error.

    Args:
        *key: Integers and strings, as for `stable_hash`.

    Example:
        >>> before = torch.get_rng_state()
        >>> with seeded("weights", 7):
        ...     layer = torch.nn.Linear(2, 2)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    before = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(stable_hash(*key))
        yield
    finally:
        torch.set_rng_state(before)


def generator(*key: int | str) -> torch.Generator:
    """Returns a CPU random generator that is seeded by the key alone.

    PyTorch's CPU generator keeps 32 bits of its seed, so among millions of keys a few share a stream.

    Args:
        *key: Integers and strings, as for `stable_hash`.

    Example:
        >>> a, b = (torch.rand(2, generator=generator("augment", 0, 7)) for _ in range(2))
        >>> torch.equal(a, b)
        True
    """
    return torch.Generator(device="cpu").manual_seed(stable_hash(*key))
