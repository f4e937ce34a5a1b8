"""Pictures to indices and back: `vq inference RUN|CONFIG IMAGE ... [--out DIR]`."""

import argparse
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq import cli
from vq.files import read_npy, write_atomically
from vq.known_weights import refuse_zoo
from vq.run_config import config_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from vq.tokenizers import Tokenizer

    Indices = NDArray[np.integer]

RECONSTRUCTED = ("_reconstruction.png", "_indices.png", "_indices.npy")
DECODED = ("_decoded.png",)
logger = logging.getLogger("vq.inference")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "inference",
        "For each IMAGE writes three files: the original beside its reconstruction, the map of its indices as "
        "a picture, and the indices as .npy. An IMAGE that is such an .npy file is decoded to a picture. Images "
        "of equal names get _1, _2, ... after the first.",
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
    sources = [Path(name) for name in args.images]
    for source in sources:
        if source.is_dir():
            raise cli.UsageError(f"{source}: expected an image file, got a folder; name its files")
        if source.suffix in (".py", ".json"):
            raise cli.UsageError(
                f"{source}: expected an image, got a config; give one RUN or CONFIG, then images"
            )
        if not source.is_file():
            raise cli.UsageError(f"{source}: there is no such image")
    cli.check_out(args.out)
    targets = [args.out / name for name in _output_names(sources)]
    _refuse_overwriting(sources, targets)

    from vq.engine.loop.launch import launched, open_log

    written: list[Path] = []
    with cli.ends_on_signal(), launched(device=args.device, autocast=args.autocast) as machine:
        open_log(None)
        logger.info("%s", machine)
        tokenizer = _tokenizer(args).to(machine.device).eval()
        for source, target in zip(sources, targets, strict=True):
            work = _decode if _holds_indices(source) else _reconstruct
            for path in work(tokenizer, source, target, args):
                logger.info("wrote %s", path)
                written.append(path)
    return written


def _output_names(sources: Sequence[Path]) -> list[str]:
    """A name for the outputs of each file: its own without the ending; after the first of equal ones, numbered."""
    stems = [source.stem for source in sources]
    names: list[str] = []
    for stem in stems:
        numbered = (f"{stem}_{number}" for number in range(1, 2 * len(stems)))
        names.append(stem if stem not in names else next(n for n in numbered if n not in (*stems, *names)))
    return names


def _outputs(source: Path, target: Path) -> list[Path]:
    ends = DECODED if _holds_indices(source) else RECONSTRUCTED
    return [target.with_name(target.name + end) for end in ends]


def _refuse_overwriting(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    outputs = [path for pair in zip(sources, targets, strict=True) for path in _outputs(*pair)]
    twice = {path for path in outputs if outputs.count(path) > 1}
    inputs = {source.resolve() for source in sources}
    for path in outputs:
        if path in twice or path.resolve() in inputs:
            raise cli.UsageError(
                f"{path}: would overwrite {'another output' if path in twice else 'an input'}; choose another --out, "
                f"or give fewer images at a time"
            )


def _holds_indices(source: Path) -> bool:
    return source.suffix.lower() == ".npy"


def _tokenizer(args: argparse.Namespace) -> "Tokenizer":
    from vq.engine.assembly.build import make_tokenizer
    from vq.tokenizers.checkpoint import find_weights, load_tokenizer, load_weights, read_config

    if not args.load_model_from and not args.model.endswith((".py", ".json")):
        if args.override or args.config_options:
            raise cli.UsageError(
                f"{args.model}: a run has its own config and weights; give a CONFIG to change them"
            )
        file = find_weights(_run_or_file(args.model))
        if "generator" in (read_config(file) or {}):
            raise cli.UsageError(f"{args.model}: holds a generator, not a tokenizer; use `vq generate`")
        return load_tokenizer(file)
    if not args.load_model_from:
        raise cli.UsageError(
            f"{args.model}: a config has no weights; add --load-model-from, or give a run folder"
        )
    args.config = args.model
    config = config_for(args, run=None, weights=args.load_model_from, compared=["tokenizer"])
    tokenizer = make_tokenizer(config)
    files = [find_weights(path) for path in args.load_model_from]
    load_weights(tokenizer, files, allow_missing=args.allow_missing, allow_unexpected=args.allow_unexpected)
    return tokenizer


def _run_or_file(name: str) -> Path:
    """The path that a NAME or a path means; a path that exists comes first."""
    refuse_zoo(name)
    if Path(name).exists():
        return Path(name)
    run = Path(cli.WORK_DIRS / name)
    if not run.is_dir():
        raise cli.UsageError(f"{name}: there is no such run, folder or file{cli.known_runs(name)}")
    return run


def _reconstruct(tokenizer: "Tokenizer", source: Path, target: Path, args: argparse.Namespace) -> list[Path]:
    import numpy as np
    import torch

    from vq.engine.evaluation.pictures import beside, index_picture
    from vq.ops.images import save_png, to_signed_unit, to_uint8

    image = _prepare(source, tokenizer.downsample_factor, args.size)
    device = next(tokenizer.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=args.autocast):
        indices = tokenizer.encode(to_signed_unit(image[None].to(device)))
        reconstruction = to_uint8(tokenizer.decode(indices).float())[0].cpu()
    indices = indices[0].cpu()
    height, width = image.shape[-2:]
    files = _outputs(source, target)
    save_png(beside(image, reconstruction), files[0])
    save_png(index_picture(indices, tokenizer.codebook_size, height=height, width=width), files[1])
    content = io.BytesIO()
    np.save(content, indices.numpy())
    write_atomically(files[2], content.getvalue())
    return files


def _decode(tokenizer: "Tokenizer", source: Path, target: Path, args: argparse.Namespace) -> list[Path]:
    import numpy as np
    import torch

    from vq.ops.images import save_png, to_uint8

    indices = torch.from_numpy(_read_indices(source, tokenizer).astype(np.int64))
    device = next(tokenizer.parameters()).device
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=args.autocast):
            image = tokenizer.decode(indices[None].to(device))
    except ValueError as error:  # what `_read_indices` cannot know, such as the scales of a grid
        raise cli.UsageError(f"{source}: {error}") from error
    (file,) = _outputs(source, target)
    save_png(to_uint8(image.float())[0].cpu(), file)
    return [file]


def _read_indices(source: Path, tokenizer: "Tokenizer") -> "Indices":
    """The integers of a file, checked against what the tokenizer decodes.

    Raises:
        UsageError: If the file is not one array of integers of the right shape, or an index is out of range.
    """
    import numpy as np

    try:
        indices = read_npy(source)
    except (ValueError, OSError) as error:
        raise cli.UsageError(f"{source}: expected an .npy file of indices, got: {error}") from error
    factor = tokenizer.downsample_factor
    height, width = getattr(tokenizer, "image_size", None) or (factor, factor)
    wanted = tokenizer.indices_shape(height, width)
    is_fixed = getattr(tokenizer, "image_size", None) is not None or len(wanted) < 2
    stack = wanted[2:]
    fits = indices.ndim == len(wanted) and (
        indices.shape == wanted if is_fixed else indices.shape[2:] == stack
    )
    if not fits or not np.issubdtype(indices.dtype, np.integer) or indices.size == 0:
        shape = ", ".join(map(str, wanted if is_fixed else ("h", "w", *stack)))
        raise cli.UsageError(
            f"{source}: expected integers of the shape ({shape}), without a batch axis, got {indices.dtype} of the "
            f"shape {indices.shape}; vq.inference writes such files"
        )
    lowest, highest = int(indices.min()), int(indices.max())
    if lowest < 0 or highest >= tokenizer.codebook_size:
        raise cli.UsageError(
            f"{source}: expected indices from 0 to {tokenizer.codebook_size - 1}, got {lowest} to {highest}; were "
            f"they made by another tokenizer?"
        )
    return indices


def _prepare(source: Path, factor: int, size: int | None) -> "Tensor":
    """The picture at a size that the stride divides."""
    import torch

    from vq.data import CenterCrop, Resize, read_image

    image = read_image(source, str(source))
    if size is not None:
        if size % factor:
            raise cli.UsageError(f"--size {size}: expected a multiple of the tokenizer's stride {factor}")
        unused = torch.Generator()
        return CenterCrop(size=size)(Resize(size=size)(image, unused), unused)
    height, width = (side // factor * factor for side in image.shape[-2:])
    if not height or not width:
        raise cli.UsageError(
            f"{source}: {tuple(image.shape[-2:])} pixels are fewer than the stride {factor}; use --size"
        )
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[:, top : top + height, left : left + width]


if __name__ == "__main__":
    cli.main(main)
