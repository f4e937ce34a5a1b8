"""A tokenizer as files for other runtimes: `vq export NAME --to onnx|torchscript|exported_program`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vq import cli

if TYPE_CHECKING:
    from vq.exporting import Exported

TARGETS = ("onnx", "torchscript", "exported_program")


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "export",
        "Writes a tokenizer as one file for encode (float32 images in [-1, 1], (batch, channels, height, width), to "
        "int64 indices) and one for decode (indices to float32 images in [-1, 1]). The files compute in float32; a "
        "tokenizer in another precision is converted, and the command says so. Each file is then run on random input "
        "and compared with the tokenizer, if its runtime is installed. Nothing is overwritten, and the output folder "
        "appears only when it is complete.",
        "vq export emoji --to onnx --size 64",
    )
    parser.add_argument(
        "model",
        metavar="NAME",
        help="a run by its NAME or folder, a checkpoint folder, a weight file, or zoo:NAME",
    )
    parser.add_argument("--to", choices=TARGETS, required=True, help="the format")
    parser.add_argument("--encode", action="store_true", help="write the file for encode only")
    parser.add_argument(
        "--decode", action="store_true", help="write the file for decode only; default: both files"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the folder to write (default: work_dirs/export/NAME/FORMAT)"
    )
    parser.add_argument(
        "--size",
        type=cli.positive,
        help="the height and width of images, which the files fix (default: the size that the tokenizer is built "
        "for, or else 256)",
    )
    parser.add_argument(
        "--fixed-batch",
        type=cli.positive,
        metavar="N",
        help="the only batch size of the files (default: any batch size)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> "list[Exported]":
    """Runs the command; returns the files that it wrote."""
    args = arguments().parse_args(argv)
    out = args.out or cli.WORK_DIRS / "export" / _folder_of(args.model) / args.to
    cli.check_out(out)

    import vq
    from vq.exporting import Export
    from vq.tokenizers.checkpoint import find_weights

    export = Export(target=args.to, size=args.size, fixed_batch=args.fixed_batch)
    export.check_packages()
    file = find_weights(_model(args.model))
    tokenizer = vq.load(file)
    if stored := _other_precisions(file):
        cli.say(f"{file}: has weights in {', '.join(stored)}; the exported files have them in float32")
    functions = _functions(args)
    if not (args.encode or args.decode) and not tokenizer.has_image_decoder:
        cli.say(f"{args.model}: {type(tokenizer).__name__} has no image decoder; only encode is written")
        functions = ["encode"]
    with cli.ends_on_signal():
        done = export.write(tokenizer, functions, out)
    cli.say(*(f"{file.path}: {file.verified}" for file in done))
    return done


def _functions(args: argparse.Namespace) -> list[Literal["encode", "decode"]]:
    if args.encode == args.decode:
        return ["encode", "decode"]
    return ["encode"] if args.encode else ["decode"]


def _other_precisions(file: Path) -> list[str]:
    """The precisions of a weight file's floating-point tensors other than float32."""
    from safetensors import safe_open

    names = {"F16": "float16", "BF16": "bfloat16", "F64": "float64"}
    with safe_open(file, "pt") as tensors:
        stored = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    return [name for key, name in names.items() if key in stored]


def _model(name: str) -> str:
    """What `vq.load` takes: an address, a path that exists, or the folder of a run."""
    if name.startswith(("zoo:", "hf:")) or Path(name).exists():
        return name
    run = cli.WORK_DIRS / name
    if not run.is_dir():
        raise cli.UsageError(f"{name}: there is no such run, folder or file{cli.known_runs(name)}")
    return str(run)


def _folder_of(name: str) -> str:
    """A relative path for the outputs of a model."""
    parts = Path(name.partition(":")[2] if name.startswith(("zoo:", "hf:")) else name).parts
    return str(Path(*(part for part in parts if part not in ("/", "..", "work_dirs", "checkpoints"))))


if __name__ == "__main__":
    cli.main(main)
