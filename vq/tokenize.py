"""Turns a set of images into a token store: `vq tokenize NAME [CONFIG] [--train]`."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import cli
from vq.run_config import DATA, config_for

if TYPE_CHECKING:
    from vq.engine.jobs.tokenization import Tokenization

logger = logging.getLogger("vq.tokenize")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "tokenize",
        "Writes the indices of every image of the page's validation set (or training set, without its random "
        "transforms) to work_dirs/NAME/tokens/{val,train}: 2 to 4 bytes per index, read by vq.data.TokenDataset. "
        "Stopped and started again, it continues, to the same bytes; under torchrun the ranks share the work.",
        "vq tokenize fsq/240_digits --train",
    )
    cli.add_run(parser, exists=True)
    cli.add_machine(parser)
    cli.add_weights(parser)
    parser.add_argument(
        "--train", action="store_true", help="the images of train_data, with the transforms of val_data"
    )
    parser.add_argument(
        "--crops",
        type=int,
        default=1,
        choices=(1, 2, 10),
        help="views per image: the image; the image and its mirror image; or ten crops",
    )
    parser.add_argument(
        "--images-per-shard",
        type=cli.positive,
        default=1024,
        help="the ranks share whole shards (default 1024)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser


def main(argv: Sequence[str] | None = None) -> "Tokenization":
    """Runs the command."""
    args = arguments().parse_args(argv)
    run = cli.run_directory(args.name)
    config = config_for(args, run=run, weights=args.load_model_from, compared=(*DATA, "tokenizer"))
    cli.check_out(args.out)
    if args.train and "dataset" not in config.get("train_data", {}):
        raise cli.UsageError("--train: the config has no train_data.dataset to take the images from")

    from vq.engine.loop.launch import launched, open_log

    with cli.ends_on_signal(), launched(device=args.device, autocast=args.autocast) as machine:
        open_log(None)
        logger.info("%s", machine)
        return _tokenize(args, run, config, machine.device)


def _tokenize(args: argparse.Namespace, run: Path, config: dict[str, Any], device: str) -> "Tokenization":
    import torch

    from vq.engine import assembly
    from vq.engine.evaluation.progress import PassProgress
    from vq.engine.jobs.given_weights import GivenWeights
    from vq.engine.jobs.tokenization import settings_of, tokenize

    tokenizer = assembly.make_tokenizer(config).to(device).eval()
    weights = GivenWeights(
        paths=args.load_model_from or [run],
        allow_missing=args.allow_missing,
        allow_unexpected=args.allow_unexpected,
    )
    weights.load_into(tokenizer)
    split = "train" if args.train else "val"
    if args.train:  # the images of one section, the transforms of the other: nothing random
        config["val_data"] = {
            **assembly.section(config, "val_data"),
            "dataset": config["train_data"]["dataset"],
        }
    loader = assembly.make_loader(config, "val_data")
    assembly.check_image_size(tokenizer, loader, "val_data")
    directory = args.out or run / "tokens" / split
    progress = PassProgress("tokenize", loader.num_samples)
    with progress, torch.autocast(torch.device(device).type, torch.bfloat16, enabled=args.autocast):
        found = tokenize(
            tokenizer,
            loader,
            directory,
            crops=args.crops,
            images_per_shard=args.images_per_shard,
            settings=settings_of(config, tokenizer, split=split, autocast=args.autocast),
            on_progress=progress.advance,
        )
    logger.info(
        "wrote %d images, %.2f MB of indices, to %s", found.num_images, found.num_bytes / 1e6, directory
    )
    if found.undecodable:
        logger.warning(
            "%d images could not be decoded and are left out: %s (all are in manifest.json)",
            len(found.undecodable),
            ", ".join(found.undecodable[:10]),
        )
    return found


if __name__ == "__main__":
    cli.main(main)
