"""Images to indices and back: `vq inference RUN|CONFIG IMAGE ... [--out DIR]`."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq import cli
from vq.known_weights import refuse_zoo
from vq.run_config import config_for

if TYPE_CHECKING:
    from vq.tokenizers import Tokenizer

RECONSTRUCTED = ("_reconstruction.png", "_indices.png", "_indices.npy")
DECODED = ("_decoded.png",)
logger = logging.getLogger("vq.inference")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "inference",
        "For each IMAGE writes three files: the original beside its reconstruction, the map of its indices as a "
        "picture, and the indices as .npy. A tokenizer without an image decoder writes the last two. An IMAGE that is "
        "such an .npy file is decoded to a picture. Where several images have the same name, the outputs of the second "
        "get _1, of the third _2, and so on.",
        "vq inference emoji cat.png --out out\n"
        "  vq inference fsq/1000_emoji cat.png --load-model-from model.safetensors",
    )
    parser.add_argument(
        "model",
        metavar="RUN|CONFIG",
        help="a run by its NAME or folder, or a checkpoint folder or file; with --load-model-from, a CONFIG",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, or .npy files of indices")
    parser.add_argument(
        "--out", type=Path, default=Path("work_dirs/inference"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--size",
        type=cli.positive,
        help="resize and crop to SIZE x SIZE; default: crop to what the stride divides",
    )
    cli.add_as_given(parser)
    cli.add_config_changes(parser)
    cli.add_machine(parser)
    cli.add_weights(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Runs the command; returns the files it wrote."""
    args = arguments().parse_args(argv)
    refuse_zoo(args.model)
    sources = [Path(name) for name in args.images]
    _check_sources(sources)
    cli.check_out(args.out)
    outputs = [
        _outputs(source, args.out / name)
        for source, name in zip(sources, _output_names(sources), strict=True)
    ]
    _refuse_overwriting(sources, outputs)

    from vq.engine.jobs.image_files import FileTranslator
    from vq.engine.loop.launch import launched, open_log

    with cli.ends_on_signal(), launched(device=args.device, autocast=args.autocast) as machine:
        open_log(None)
        logger.info("%s", machine)
        tokenizer = _tokenizer(args).to(machine.device).eval()
        translator = FileTranslator(tokenizer=tokenizer, autocast=args.autocast, size=args.size)
        written = []
        for source, files in zip(sources, outputs, strict=True):
            if _holds_indices(source):
                translator.decode(source, files[0])
                written.append(files[0])
            else:
                pair, index_map, indices = files
                written += translator.translate(
                    source, beside_original=pair, index_map=index_map, indices=indices
                )
        for path in written:
            logger.info("wrote %s", path)
    return written


def _check_sources(sources: Sequence[Path]) -> None:
    for source in sources:
        if source.is_dir():
            raise cli.UsageError(f"{source}: expected an image file, got a folder; name its files")
        if source.suffix in (".py", ".json"):
            raise cli.UsageError(
                f"{source}: expected an image, got a config; give one RUN or CONFIG, then images"
            )
        if not source.is_file():
            raise cli.UsageError(f"{source}: there is no such image")


def _output_names(sources: Sequence[Path]) -> list[str]:
    """A name for the outputs of each file: its own without the suffix; the second of equal names gets _1, and so on."""
    stems = [source.stem for source in sources]
    names: list[str] = []
    for stem in stems:
        numbered = (f"{stem}_{number}" for number in range(1, 2 * len(stems)))
        names.append(stem if stem not in names else next(n for n in numbered if n not in (*stems, *names)))
    return names


def _outputs(source: Path, target: Path) -> list[Path]:
    ends = DECODED if _holds_indices(source) else RECONSTRUCTED
    return [target.with_name(target.name + end) for end in ends]


def _refuse_overwriting(sources: Sequence[Path], outputs: Sequence[list[Path]]) -> None:
    files = [path for some in outputs for path in some]
    inputs = {source.resolve() for source in sources}
    for path in files:
        is_repeated = files.count(path) > 1
        if is_repeated or path.resolve() in inputs:
            raise cli.UsageError(
                f"{path}: would overwrite {'another output' if is_repeated else 'an input'}; choose another --out, or "
                f"give fewer images at a time"
            )


def _holds_indices(source: Path) -> bool:
    return source.suffix.lower() == ".npy"


def _tokenizer(args: argparse.Namespace) -> "Tokenizer":
    from vq.config import trained_section
    from vq.engine.assembly.build import make_tokenizer
    from vq.tokenizers.checkpoint import find_weights, load_tokenizer, read_config

    if not args.load_model_from and not args.model.endswith((".py", ".json")):
        if args.override or args.config_options:
            raise cli.UsageError(
                f"{args.model}: a run has its own config and weights; give a CONFIG to change them"
            )
        file = find_weights(_run_or_file(args.model))
        if (trained := trained_section(read_config(file) or {})) != "tokenizer":
            cure = "use `vq generate`" if trained == "generator" else "use vq.load_probe in Python"
            raise cli.UsageError(f"{args.model}: holds a {trained}, not a tokenizer; {cure}")
        return load_tokenizer(file)
    if not args.load_model_from:
        raise cli.UsageError(
            f"{args.model}: a config has no weights; add --load-model-from, or give a run folder"
        )
    args.config = args.model
    config = config_for(args, run=None, weights=args.load_model_from, compared=["tokenizer"])
    tokenizer = make_tokenizer(config)
    cli.given_weights(args, args.load_model_from).load_into(tokenizer)
    return tokenizer


def _run_or_file(name: str) -> Path:
    """The path that a NAME or a path means; a path that exists comes first."""
    if Path(name).exists():
        return Path(name)
    run = Path(cli.WORK_DIRS / name)
    if not run.is_dir():
        raise cli.UsageError(f"{name}: there is no such run, folder or file{cli.known_runs(name)}")
    return run


if __name__ == "__main__":
    cli.main(main)
