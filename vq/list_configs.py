"""Lists the config pages that come with vq: `vq configs`."""

import argparse
from collections.abc import Sequence

from vq import cli
from vq.catalogue import end_without_match, matching, table
from vq.config import packaged


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "configs",
        "Lists the config pages that come with vq, one per line, with their titles. Each name may be the CONFIG of a "
        "command.",
        'vq configs "fsq/*"\n  vq train emoji fsq/1000_emoji',
    )
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="names with wildcards: * ? [abc]"
    )
    parser.add_argument(
        "--path", action="store_true", help="print the file of each page instead of its title"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> list[str]:
    """Runs the command; returns the lines that it printed."""
    args = arguments().parse_args(argv)
    titles = packaged.titles()
    found = matching(titles, args.pattern)
    if not found:
        end_without_match("no page matches", args.pattern, titles)
    if args.path:
        return cli.say(*(str(packaged.find_config(name)) for name in found))
    return cli.say(*table(found))


if __name__ == "__main__":
    cli.main(main)
