"""Makes the reference statistics that FID is measured against: `vq fid imagenet [--train]`."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vq import cli, config
from vq.config import packaged
from vq.text import suggest

if TYPE_CHECKING:
    from mmengine.config import Config

    from vq.engine.jobs.reference_statistics import AddFeatures

SHORT = "fid/"
"""The pages whose short names DATASET may be."""

logger = logging.getLogger("vq.fid")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "fid",
        "Runs the images of a set through a feature network once and keeps the mean and covariance of their "
        "features, with a stamp that describes them: pretrained/fid/NAME_{val,train}.npz. `vq weights inception` "
        "fetches the network's weights.",
        "vq fid imagenet\n  auto_torchrun -m vq.fid imagenet --train --override .dataloader.batch_size:1024",
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="imagenet, imagenet128 or another page of configs/fid, or any CONFIG with val_data: the network is that "
        "of its first feature metric, and the images are cropped as val_data crops them",
    )
    parser.add_argument("--train", action="store_true", help="the training images (default: validation)")
    parser.add_argument("--out", type=Path, help="another file than pretrained/fid/NAME_{val,train}.npz")
    cli.add_config_changes(parser)
    parser.add_argument("--device", help="cuda, cpu, ... (default: cuda where there is one)")
    cli.add_engine(parser)
    return parser


def page_of(name: str) -> Path:
    """The page that DATASET means: one of configs/fid by its short name, or any other CONFIG.

    Raises:
        UserError: If there is none; the message names the short ones.
    """
    known = [page.removeprefix(SHORT) for page in packaged.names() if page.startswith(SHORT)]
    if name in known:
        return config.find_config(SHORT + name)
    if "/" in name or name.endswith(packaged.SUFFIXES):
        return config.find_config(name)
    users = [
        page
        for page in packaged.names()
        if f'reference="{name}_' in config.find_config(page).read_text(encoding="utf-8")
    ]
    hint = (
        f"; {users[0]} measures against it, so give that page"
        if users
        else suggest(name, known).partition("; valid")[0]
    )
    raise cli.UsageError(
        f"DATASET {name!r}: expected one of {', '.join(known) or 'none'}, or the path of a page, got neither{hint}"
    )


def data_config(args: argparse.Namespace) -> "Config":
    """The config of DATASET; `.dataloader` in an override means the loader of the images."""
    changes = {
        _changed_place(key, train=args.train): value
        for key, value in config.parse_assignments(args.override).items()
    }
    options = config.parse_assignments(args.config_options)
    return config.load(page_of(args.dataset), options=options, overrides=changes)


def _changed_place(key: str, *, train: bool) -> str:
    if key != ".dataloader" and not key.startswith(".dataloader."):
        return key
    rest = key.removeprefix(".dataloader")
    # The images come from train_data, but everything else of the loader from val_data.
    return (".train_data" if train and rest.startswith(".dataset") else ".val_data") + rest


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the command; returns the file."""
    args = arguments().parse_args(argv)
    if args.out is not None and args.out.is_dir():
        raise cli.UsageError(
            f"--out {args.out}: expected a file name such as {args.out}/NAME.npz, got a folder"
        )
    cli.check_engine(args)
    cli.check_out(None if args.out is None else args.out.parent)
    tree = data_config(args).to_dict()

    from vq import distributed
    from vq.engine.assembly.build import make_loader
    from vq.engine.jobs import reference_statistics as reference
    from vq.engine.loop.launch import launched, open_log
    from vq.metrics.statistics import reference_path

    with cli.ends_on_signal(), launched(device=cli.own_device(args)) as machine:
        node = reference.reference_section(tree, train=args.train)
        name = reference.reference_name(tree, train=args.train)
        section = "train_data" if args.train else "val_data"
        loader = make_loader({section: node}, section)
        network = reference.feature_network(tree)
        target = args.out or reference_path(name)
        open_log(cli.WORK_DIRS / "fid" / f"{name}.log")
        logger.info("%s", machine)
        logger.info("%d images through %s (%s)", loader.num_samples, network.name, network.resize)
        with _adding(args) as add:
            found = reference.collect(
                loader,
                network,
                device=machine.device,
                dataset=name,
                words=reference.preprocessing(node),
                rgb=reference.feature_view(tree),
                add=add,
            )
        if distributed.rank() == 0:
            if target.exists():
                logger.info("replacing %s", target)
            found.save(target)
            logger.info("wrote %s: %s", target, found.stamp)
        distributed.barrier()
        return target


@contextmanager
def _adding(args: argparse.Namespace) -> Iterator["AddFeatures"]:
    """What computes the features: this process, or inside the block the workers of a Ray cluster."""
    from vq.engine.jobs.reference_statistics import add_features

    with cli.ray_workers(args) as workers:
        if workers is None:
            yield add_features
        else:
            from vq.engine.on_ray import RayFeatures

            yield RayFeatures(workers=workers)


if __name__ == "__main__":
    cli.main(main)
