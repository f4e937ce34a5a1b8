"""Lists the classes that a config may name, and the published models: `vq list quantizers`."""

import argparse
from collections.abc import Sequence

from vq import cli, zoo
from vq.catalogue import GROUPS, classes, end_without_match, matching, table

PRETRAINED = "pretrained"


def _described(name: str) -> str:
    """One line about a published model."""
    family, model = zoo.find(name)
    kind = "generator" if model.tokenizer else "tokenizer"
    best = next((f", {key} {value:g}" for row in model.scores for key, value in row.values.items()), "")
    return f"{family.title}, {kind}, {model.resolution} px{best}"


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "list",
        "Lists the classes that a config may name, one per line, with the first line of their documentation; or the "
        "published models, whose weights vq reads. Without KIND it lists the kinds.",
        'vq list quantizers\n  vq list networks "*Decoder"\n  vq list pretrained "*ds16*"',
    )
    kinds = [*GROUPS, PRETRAINED]
    parser.add_argument("kind", metavar="KIND", nargs="?", choices=kinds, help=f"one of {', '.join(kinds)}")
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="names with wildcards: * ? [abc]"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> list[str]:
    """Runs the command; returns the names that it listed."""
    args = arguments().parse_args(argv)
    if args.kind is None:
        summaries = {name: group.summary for name, group in GROUPS.items()}
        return cli.say(
            *table({**summaries, PRETRAINED: "published models: zoo:NAME where weights are expected"})
        )
    if args.kind == PRETRAINED:
        models = {name: _described(name) for name in zoo.names()}
        found = matching(models, args.pattern)
        if not found:
            end_without_match("no published models match", args.pattern, models)
        return cli.say(*table(found))
    entries = classes(args.kind)
    found = matching(entries, args.pattern)
    if not found:
        end_without_match(f"no {args.kind} match", args.pattern, entries)
    return cli.say(*table(found))


if __name__ == "__main__":
    cli.main(main)
