"""Converts weights of other projects to those of this one, and back: `vq convert FILE`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vq import cli
from vq.text import printable

TARGETS = ("taming", "taming_gumbel", "llamagen", "llamagen_gpt", "diffusers")
"""The keys of `vq.interop.layouts.LAYOUTS`, which needs torch."""


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "convert",
        "Writes the weights of another project as a file that vq.load reads. The project and the architecture are "
        "recognised from the names and shapes of the tensors; every tensor of the file and of the model must match, or "
        "nothing is written. A pickle is read as plain tensors, and none of its content runs. With --to, weights are "
        "written as another project publishes them, if it computes the same with them and they are read again bit for "
        "bit.",
        "vq convert vq_ds16_c2i.pt --out llamagen.safetensors",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="weights: .safetensors, .ckpt, .pt, .bin, .pth, or the folder of a model of diffusers or transformers, "
        "also one of shards; with --to, whatever vq.load reads too",
    )
    parser.add_argument(
        "--to",
        choices=TARGETS,
        metavar="PROJECT",
        help=f"writes for another project: {', '.join(TARGETS)}",
    )
    parser.add_argument(
        "--dialect", metavar="NAME", help="the project that wrote the file, where it cannot be recognised"
    )
    parser.add_argument(
        "--config", metavar="PAGE", help="the page whose model has these weights, in place of what they say"
    )
    parser.add_argument(
        "--options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY:VALUE",
        help="what names and shapes do not show, as the dialect has it: with_decoder:True (beitv2)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="the file to write (default: FILE with the ending .safetensors, or .converted.safetensors); with --to, "
        "the name that is needed: .ckpt for taming and taming_gumbel, .pt for llamagen and llamagen_gpt, a folder for "
        "diffusers",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the command; returns the file that it wrote."""
    args = arguments().parse_args(argv)
    if args.to:
        return _write(args)
    out = args.out or _beside(args.file)
    if out.suffix != ".safetensors":
        raise cli.UsageError(f"--out: expected a name that ends in .safetensors, got {out}")
    if out.exists():
        raise cli.UsageError(f"{out}: exists already; give another --out, or delete it")

    from vq.tokenizers.published import convert_file

    found = convert_file(args.file, out, dialect=args.dialect, page=args.config, options=args.options)
    count = sum(tensor.numel() for tensor in found.tensors.values())
    first = ", ".join([*found.ignored[:3], *(["..."] if len(found.ignored) > 3 else [])])
    ignored = f", {len(found.ignored)} tensors left out ({first})" if found.ignored else ""
    cli.say(
        printable(
            f"{out}: {found.dialect} weights, {len(found.tensors)} tensors, {count / 1e6:.2f} M numbers{ignored}"
        )
    )
    return out


def _write(args: argparse.Namespace) -> Path:
    """Writes for another project."""
    if args.out is None:
        raise cli.UsageError(f"--to {args.to}: expected --out, the file or folder to write, got none")
    from vq.tokenizers.published import write_file

    count = write_file(
        args.file, args.out, args.to, dialect=args.dialect, page=args.config, options=args.options
    )
    cli.say(
        printable(
            f"{args.out}: {args.to} weights, {count} tensors; they are read again as those of {args.file}, bit for bit"
        )
    )
    out: Path = args.out
    return out


def _beside(file: Path) -> Path:
    """The default file to write."""
    if file.is_dir():
        return file.with_name(f"{file.resolve().name}.safetensors")
    return file.with_suffix(".converted.safetensors" if file.suffix == ".safetensors" else ".safetensors")


if __name__ == "__main__":
    cli.main(main)
