"""A folder that appears whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vq import cli


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Gives OUT.partial to write to, which becomes OUT at the end and is removed on an error.

    Args:
        out: A folder that is empty or not there yet.

    Raises:
        UsageError: If `out` or OUT.partial holds files already.
    """
    out = out.resolve()
    partial = out.with_name(f"{out.name}.partial")
    for place in (out, partial):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise cli.UsageError(
                f"{place}: expected a folder that is empty or not there, got one that holds files; nothing is "
                f"overwritten: remove it, or give another --out"
            )
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if out.exists():
            out.rmdir()  # it is empty
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


__all__ = ["new_folder"]
