"""Images to indices and back: `vq inference RUN|CONFIG IMAGE ... [--out DIR]`."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import cli
from vq.run_config import config_for

if TYPE_CHECKING:
    from vq.tokenizers import Tokenizer

PAIR, INDEX_MAP, INDICES, DECODED = "_reconstruction.png", "_indices.png", "_indices.npy", "_decoded.png"
OF_IMAGE = (PAIR, INDEX_MAP, INDICES, "_reconstruction.npy")
"""The endings of what is written for an image; the last one only if a PNG cannot hold its channels."""
OF_ARRAY = (*OF_IMAGE, DECODED, "_decoded.npy")
"""The endings of what may be written for an .npy file, which holds indices or an image."""
logger = logging.getLogger("vq.inference")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "inference",
        "For each IMAGE writes three files: the original beside its reconstruction, the map of its indices as a "
        "picture, and the indices as .npy. A tokenizer without an image decoder writes the last two. An IMAGE that is "
        "such an .npy file is decoded to a picture. Images are read with the channels of the tokenizer; where a PNG "
        "cannot hold them, the reconstruction is written as .npy too. Where several images have the same name, the "
        "outputs of the second get _1, of the third _2, and so on.",
        "vq inference emoji cat.png --out out\n"
        "  vq inference fsq/1000_emoji cat.png --load-model-from model.safetensors",
    )
    parser.add_argument(
        "model",
        metavar="RUN|CONFIG",
        help="a run by its NAME or folder, a checkpoint folder or file, zoo:FAMILY/MODEL, or hf://OWNER/REPOSITORY; "
        "with --load-model-from, a CONFIG",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, or .npy files of indices")
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
    sources = [Path(name) for name in args.images]
    _check_sources(sources)
    cli.check_out(args.out)
    targets = [args.out / name for name in _output_names(sources)]
    _refuse_overwriting(sources, targets)

    from vq.engine.jobs.image_files import FileTranslator
    from vq.engine.loop.launch import launched, open_log

    with cli.ends_on_signal(), launched(device=args.device, autocast=args.autocast) as machine:
        open_log(None)
        logger.info("%s", machine)
        tokenizer, config = _tokenizer(args)
        translator = FileTranslator(
            tokenizer=tokenizer.to(machine.device).eval(),
            autocast=args.autocast,
            size=args.size,
            value_range=_setting(config, "val_data", "dataset", "value_range"),
            rgb=_setting(config, "evaluator", "rgb"),
        )
        written = []
        for source, target in zip(sources, targets, strict=True):
            if translator.holds_indices(source):
                written += translator.decode(source, _output(target, DECODED))
            else:
                written += translator.translate(
                    source,
                    beside_original=_output(target, PAIR),
                    index_map=_output(target, INDEX_MAP),
                    indices=_output(target, INDICES),
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


def _output(target: Path, end: str) -> Path:
    return target.with_name(target.name + end)


def _refuse_overwriting(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    """Refuses outputs that may have the name of another output or of an input."""
    files = [
        _output(target, end)
        for source, target in zip(sources, targets, strict=True)
        for end in (OF_IMAGE if source.suffix.lower() != ".npy" else OF_ARRAY)
    ]
    inputs = {source.resolve() for source in sources}
    for path in files:
        is_repeated = files.count(path) > 1
        if is_repeated or path.resolve() in inputs:
            raise cli.UsageError(
                f"{path}: would overwrite {'another output' if is_repeated else 'an input'}; choose another --out, or "
                f"give fewer images at a time"
            )


def _setting(config: Mapping[str, Any], *keys: str) -> Any:
    """A value inside the config; None if the config does not have it."""
    value: Any = config
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _tokenizer(args: argparse.Namespace) -> "tuple[Tokenizer, Mapping[str, Any]]":
    """The tokenizer, and its config, which is empty if the weights have none."""
    from vq.config import trained_section
    from vq.engine.assembly.build import make_tokenizer
    from vq.tokenizers.checkpoint import find_weights, load_tokenizer, read_config

    if not args.load_model_from and not args.model.endswith((".py", ".json")):
        if args.override or args.config_options:
            raise cli.UsageError(
                f"{args.model}: a run has its own config and weights; give a CONFIG to change them"
            )
        file = find_weights(_run_or_file(args.model))
        found = read_config(file) or {}
        if (trained := trained_section(found)) != "tokenizer":
            cure = "use `vq generate`" if trained == "generator" else "use vq.load_probe in Python"
            raise cli.UsageError(f"{args.model}: holds a {trained}, not a tokenizer; {cure}")
        return load_tokenizer(file), found
    if not args.load_model_from:
        raise cli.UsageError(
            f"{args.model}: a config has no weights; add --load-model-from, or give a run folder"
        )
    args.config = args.model
    config = config_for(args, run=None, weights=args.load_model_from, compared=["tokenizer"])
    tokenizer = make_tokenizer(config)
    cli.given_weights(args, args.load_model_from).load_into(tokenizer)
    return tokenizer, config


def _run_or_file(name: str) -> str | Path:
    """What `find_weights` takes for a NAME, a path, or an address; a path that exists comes first."""
    if name.startswith(("zoo:", "hf://")):
        return name
    if Path(name).exists():
        return Path(name)
    run = Path(cli.WORK_DIRS / name)
    if not run.is_dir():
        raise cli.UsageError(f"{name}: there is no such run, folder or file{cli.known_runs(name)}")
    return run


if __name__ == "__main__":
    cli.main(main)
