"""FID of a folder of images against reference statistics, which `vq fid` computes once.

    python tools/fid.py imagenet_val IMAGES --work-dir IMAGES/..

Under auto_torchrun it uses every GPU. Each run appends its scores to fid.jsonl.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vq import cli, distributed
from vq.data import UndecodableSetError
from vq.engine.jobs.reference_statistics import collect, folder_loader, network_of, record
from vq.engine.loop.launch import launched, open_log
from vq.metrics.features import score_name
from vq.metrics.statistics import ReferenceStatistics, frechet, reference_path
from vq.networks.frozen.features import FeatureNetwork


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.tool_parser(__doc__)
    parser.add_argument(
        "reference",
        metavar="CACHE",
        help="a .npz file, or a name: imagenet_val means pretrained/fid/imagenet_val.npz",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the images, all of one size")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=cli.WORK_DIRS / "fid",
        help="the folder of fid.jsonl",
    )
    parser.add_argument(
        "--batch-size", type=int, default=50, help="images per process (default: %(default)s)"
    )
    parser.add_argument(
        "--num-workers", type=int, default=2, help="processes that read images (default: %(default)s)"
    )
    parser.add_argument("--device", help="cuda or cpu (default: cuda if there is a GPU)")
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Runs the command; returns the scores."""
    args = arguments().parse_args(argv)
    with launched(device=args.device) as machine:
        open_log(None)
        try:
            reference = ReferenceStatistics.load(reference_path(args.reference))
            network = network_of(reference.stamp)
            reference.check(network, reference_path(args.reference))
            loader = folder_loader(args.folder, batch_size=args.batch_size, num_workers=args.num_workers)
            found = collect(loader, network, device=machine.device, dataset=str(args.folder), words="none")
            return _scores(args, network, found, reference)
        except (UndecodableSetError, FileNotFoundError, ValueError) as error:
            raise cli.UsageError(str(error)) from error


def _scores(
    args: argparse.Namespace,
    network: FeatureNetwork,
    found: ReferenceStatistics,
    reference: ReferenceStatistics,
) -> dict[str, float]:
    scores: dict[str, float] = {}
    if distributed.rank() == 0:
        scores[score_name(network, "fid", "frechet")] = frechet(found, reference)
        if found.spatial_mean is not None and reference.spatial_mean is not None:
            name = score_name(network, "sfid", "spatial_frechet")
            scores[name] = frechet(found, reference, kind="spatial")
        record(
            scores,
            {"images": found.stamp.as_dict(), "reference": reference.stamp.as_dict()},
            file=args.work_dir / "fid.jsonl",
            title=f"{args.folder}: {found.stamp.num_images} images against {args.reference} ({reference.stamp})",
        )
    distributed.barrier()
    return scores


if __name__ == "__main__":
    cli.main(main)
