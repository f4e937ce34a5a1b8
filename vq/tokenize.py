"""Turns a set of images into a store of tokens or features: `vq tokenize NAME [CONFIG] [--train] [--features]`."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import cli
from vq.run_config import DATA, config_for

if TYPE_CHECKING:
    from vq.engine.jobs.store_writing import StoredSet, WriteShards

logger = logging.getLogger("vq.tokenize")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "tokenize",
        "Writes the indices of every image of the page's validation set (or training set, without its random "
        "transforms) to work_dirs/NAME/tokens/{val,train}: 2 to 4 bytes per index, read by vq.data.TokenDataset. "
        "Stopped and started again, it continues, to the same bytes; under torchrun the ranks share the work, and with "
        "--engine ray the workers of a Ray cluster. With --features it writes the features of the page's frozen "
        "teacher instead, to work_dirs/NAME/features.",
        "vq tokenize fsq/240_digits --train",
    )
    cli.add_run(parser, exists=True)
    cli.add_machine(parser)
    cli.add_weights(parser)
    cli.add_engine(parser)
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
    features = parser.add_argument_group("features of a teacher")
    features.add_argument(
        "--features",
        action="store_true",
        help="write the features of the page's frozen teacher instead of indices, for vq.data.FeatureStore; the run "
        "need not be trained. The size is logged before the work begins",
    )
    features.add_argument(
        "--teacher",
        metavar="PLACE",
        help="which teacher of the page, if there are several: tokenizer.encoder or train_step.losses.NAME.teacher",
    )
    features.add_argument(
        "--feature-dtype",
        choices=("float16", "bfloat16", "float32"),
        help="the type of stored features, to which they are rounded (default float16)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> "StoredSet":
    """Runs the command."""
    return run_with(arguments().parse_args(argv))


def run_with(args: argparse.Namespace) -> "StoredSet":
    """Runs the command with its parsed arguments."""
    _check(args)
    cli.check_engine(args)
    run = cli.run_directory(args.name)
    config = config_for(args, run=run, weights=args.load_model_from, compared=(*DATA, "tokenizer"))
    cli.check_out(args.out)
    if args.train and "dataset" not in config.get("train_data", {}):
        raise cli.UsageError("--train: the config has no train_data.dataset to take the images from")

    from vq.engine.loop.launch import launched, open_log

    device = cli.own_device(args)
    with cli.ends_on_signal(), launched(device=device, autocast=args.autocast) as machine:
        open_log(None)
        logger.info("%s", machine)
        config = _with_images(config, train=args.train)
        if args.features:
            directory = args.out or run / "features" / _split(args)
            found = _store_features(args, config, directory, machine.device)
        else:
            directory = args.out or run / "tokens" / _split(args)
            found = _tokenize(args, run, config, directory, machine.device)
        what = "features" if args.features else "indices"
        logger.info(
            "wrote %d images, %.2f MB of %s, to %s", found.num_images, found.num_bytes / 1e6, what, directory
        )
        if found.pace.busy:  # else all shards were there already
            logger.info("%s", found.pace)
        if found.undecodable:
            logger.warning(
                "%d images could not be decoded and are left out: %s (all are in manifest.json)",
                len(found.undecodable),
                ", ".join(found.undecodable[:10]),
            )
        return found


def _split(args: argparse.Namespace) -> str:
    return "train" if args.train else "val"


def _with_images(config: dict[str, Any], *, train: bool) -> dict[str, Any]:
    """The config with the images that are encoded in `val_data`: those of one section, the transforms of the other."""
    if not train:
        return config
    from vq.engine import assembly

    val_data = {**assembly.section(config, "val_data"), "dataset": config["train_data"]["dataset"]}
    return {**config, "val_data": val_data}


def _check(args: argparse.Namespace) -> None:
    """Refuses options that have no effect."""
    given = [
        option
        for option in ("--teacher", "--feature-dtype")
        if getattr(args, option[2:].replace("-", "_")) is not None
    ]
    if given and not args.features:
        raise cli.UsageError(f"{given[0]}: has no effect without --features; add it, or leave {given[0]} out")
    if args.features and args.load_model_from:
        raise cli.UsageError(
            "--load-model-from: the features of a frozen teacher do not depend on a run's weights; leave it out"
        )


@contextmanager
def _shard_writer(args: argparse.Namespace) -> Iterator["WriteShards"]:
    """What writes the shards: this process, or inside the block the workers of a Ray cluster."""
    from vq.engine.jobs.store_writing import write_shards

    with cli.ray_workers(args) as workers:
        if workers is None:
            yield write_shards
        else:
            from vq.engine.on_ray import RayShards

            yield RayShards(workers=workers)


def _tokenize(
    args: argparse.Namespace, run: Path, config: dict[str, Any], directory: Path, device: str
) -> "StoredSet":
    import torch

    from vq.engine import assembly
    from vq.engine.evaluation.progress import PassProgress
    from vq.engine.jobs.tokenization import settings_of, tokenize

    tokenizer = assembly.make_tokenizer(config).to(device).eval()
    cli.given_weights(args, args.load_model_from or [run]).load_into(tokenizer)
    loader = assembly.make_loader(config, "val_data")
    assembly.check_images(tokenizer, loader, "val_data")
    with (
        _shard_writer(args) as write,
        PassProgress("tokenize", loader.num_samples) as progress,
        torch.autocast(torch.device(device).type, torch.bfloat16, enabled=args.autocast),
    ):
        return tokenize(
            tokenizer,
            loader,
            directory,
            crops=args.crops,
            images_per_shard=args.images_per_shard,
            settings=settings_of(config, tokenizer, split=_split(args), autocast=args.autocast),
            on_progress=progress.advance,
            write=write,
        )


def _store_features(
    args: argparse.Namespace, config: dict[str, Any], directory: Path, device: str
) -> "StoredSet":
    import torch

    from vq.engine import assembly
    from vq.engine.evaluation.progress import PassProgress
    from vq.engine.jobs.features import FeatureRecorder, make_network, settings_of, store_features
    from vq.networks.sizes import image_channels_of

    node, network = make_network(config, args.teacher or "")
    loader = assembly.make_loader(config, "val_data")
    assembly.check_channels(loader, "val_data", type(network).__name__, image_channels_of(network))
    recorder = FeatureRecorder(
        network=network.to(device),
        dtype=args.feature_dtype or "float16",
        crops=args.crops,
        size=loader.image_size,
    )
    with (
        _shard_writer(args) as write,
        PassProgress("features", loader.num_samples) as progress,
        torch.autocast(torch.device(device).type, torch.bfloat16, enabled=args.autocast),
    ):
        return store_features(
            recorder,
            loader,
            directory,
            images_per_shard=args.images_per_shard,
            settings=settings_of(config, node, network, split=_split(args), autocast=args.autocast),
            on_size=lambda text: logger.info("%s, to %s", text, directory),
            on_progress=progress.advance,
            write=write,
        )


if __name__ == "__main__":
    cli.main(main)
