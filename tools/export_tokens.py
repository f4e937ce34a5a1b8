"""`vq tokens export`: writes a token store for other readers."""

import sys
from collections.abc import Sequence

from vq import cli, tokens


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the number of images."""
    return tokens.main(["export", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    cli.main(main)
