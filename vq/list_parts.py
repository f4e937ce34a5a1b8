"""Lists the classes that a config may name: `vq list quantizers`."""

import argparse
from collections.abc import Sequence

from vq import cli
from vq.catalogue import GROUPS, classes, end_without_match, matching, table


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "list",
        "Lists the classes that a config may name, one per line, with the first line of their documentation. Without "
        "KIND it lists the kinds.",
        'vq list quantizers\n  vq list networks "*Decoder"',
    )
    parser.add_argument("kind", metavar="KIND", nargs="?", choices=GROUPS, help=f"one of {', '.join(GROUPS)}")
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="names with wildcards: * ? [abc]"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> list[str]:
    """Runs the command; returns the names that it listed."""
    args = arguments().parse_args(argv)
    if args.kind is None:
        return cli.say(*table({name: group.summary for name, group in GROUPS.items()}))
    entries = classes(args.kind)
    found = matching(entries, args.pattern)
    if not found:
        end_without_match(f"no {args.kind} match", args.pattern, entries)
    return cli.say(*table(found))


if __name__ == "__main__":
    cli.main(main)
