"""Pictures to indices and back: `python -m vq.inference CONFIG|RUN IMAGE ... [--out DIR]`."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq import cli

if TYPE_CHECKING:
    from torch import Tensor

    from vq.tokenizers import Tokenizer

logger = logging.getLogger("vq.inference")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "inference",
        "For each IMAGE writes three files: the original beside its reconstruction, the map of its indices as "
        "a picture, and the indices as .npy. An IMAGE that is such an .npy file is decoded to a picture.",
        "python -m vq.inference work_dirs/fsq/1000_emoji cat.png --out out",
    )
    parser.add_argument(
        "model", metavar="CONFIG|RUN", help="a run or checkpoint folder, or a config with weights below"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, or .npy files of indices")
    parser.add_argument(
        "--out", default="work_dirs/inference", metavar="DIR", help="default: work_dirs/inference"
    )
    parser.add_argument(
        "--size", type=int, help="resize and crop to SIZE x SIZE; default: crop to what the stride divides"
    )
    cli.add_config_changes(parser)
    cli.add_machine(parser)
    cli.add_weights(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Runs the command; returns the files it wrote."""
    args = arguments().parse_args(argv)

    from vq.data import UndecodableImage
    from vq.engine.launch import launched, open_log
    from vq.tokenizers.checkpoint import CheckpointError

    for name in args.images:
        if not Path(name).is_file():
            raise cli.UsageError(f"{name}: there is no such image")
    stems = [Path(name).stem for name in args.images]
    with launched(device=args.device, autocast=args.autocast) as machine:
        open_log(None)
        logger.info("%s", machine)
        written: list[Path] = []
        try:
            tokenizer = _tokenizer(args).to(machine.device).eval()
            for i, name in enumerate(args.images):
                # Two pictures may share a name; each keeps its files.
                stem = stems[i] if stems.count(stems[i]) == 1 else f"{stems[i]}_{i}"
                work = _decode if name.endswith(".npy") else _reconstruct
                written += work(tokenizer, Path(name), Path(args.out) / stem, args)
        except (CheckpointError, UndecodableImage, ValueError) as error:
            raise cli.UsageError(str(error)) from error
        for path in written:
            logger.info("wrote %s", path)
    return written


def _tokenizer(args: argparse.Namespace) -> "Tokenizer":
    import vq
    from vq.engine.assemble import make_tokenizer
    from vq.tokenizers.checkpoint import find_weights, load_weights

    if not args.model.endswith((".py", ".json")):
        if args.load_model_from or args.override or args.config_options:
            raise cli.UsageError(
                f"{args.model}: a run brings its own config and weights; give a CONFIG to change them"
            )
        loaded = vq.load(args.model)
        if not hasattr(loaded, "encode"):
            raise cli.UsageError(f"{args.model}: holds a generator, not a tokenizer; use vq.generate")
        return loaded  # type: ignore[no-any-return]
    if not args.load_model_from:
        raise cli.UsageError(
            f"{args.model}: a config has no weights; add --load-model-from, or give a run folder"
        )
    args.config = args.model
    tokenizer = make_tokenizer(cli.load_config(args).to_dict())
    files = [find_weights(path) for path in args.load_model_from]
    load_weights(tokenizer, files, allow_missing=args.allow_missing, allow_unexpected=args.allow_unexpected)
    return tokenizer


def _reconstruct(tokenizer: "Tokenizer", source: Path, target: Path, args: argparse.Namespace) -> list[Path]:
    import numpy as np
    import torch

    from vq.engine.pictures import beside, index_picture
    from vq.ops.images import save_png, to_signed_unit, to_uint8

    image = _prepare(source, tokenizer.downsample_factor, args.size)
    device = next(tokenizer.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=args.autocast):
        indices = tokenizer.encode(to_signed_unit(image[None].to(device)))
        reconstruction = to_uint8(tokenizer.decode(indices).float())[0].cpu()
    indices = indices[0].cpu()
    height, width = image.shape[-2:]
    files = [
        target.with_name(target.name + end) for end in ("_reconstruction.png", "_indices.png", "_indices.npy")
    ]
    save_png(beside(image, reconstruction), files[0])
    save_png(index_picture(indices, tokenizer.codebook_size, height=height, width=width), files[1])
    np.save(files[2], indices.numpy())
    return files


def _decode(tokenizer: "Tokenizer", source: Path, target: Path, args: argparse.Namespace) -> list[Path]:
    import numpy as np
    import torch

    from vq.ops.images import save_png, to_uint8

    indices = np.load(source, allow_pickle=False)
    axes = len(tokenizer.indices_shape(tokenizer.downsample_factor, tokenizer.downsample_factor))
    if indices.ndim != axes or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f"{source}: expected integers with {axes} axes (h, w, ...; one is a sequence), got "
            f"{indices.dtype} {indices.shape}"
        )
    device = next(tokenizer.parameters()).device
    image = tokenizer.decode(torch.from_numpy(indices.astype(np.int64))[None].to(device))
    file = target.with_name(target.name + "_decoded.png")
    save_png(to_uint8(image.float())[0].cpu(), file)
    return [file]


def _prepare(source: Path, factor: int, size: int | None) -> "Tensor":
    """The picture at a size that the stride divides."""
    import torch

    from vq.data import CenterCrop, Resize, read_image

    image = read_image(source, str(source))
    if size is not None:
        if size % factor:
            raise ValueError(f"--size {size}: expected a multiple of the tokenizer's stride {factor}")
        unused = torch.Generator()
        return CenterCrop(size=size)(Resize(size=size)(image, unused), unused)
    height, width = (side // factor * factor for side in image.shape[-2:])
    if not height or not width:
        raise ValueError(
            f"{source}: {tuple(image.shape[-2:])} pixels are fewer than the stride {factor}; use --size"
        )
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[:, top : top + height, left : left + width]


if __name__ == "__main__":
    cli.main(main)
