"""FID and Inception Score of a folder of images by torch-fidelity, to compare with this project's numbers.

    python tools/fidelity.py imagenet IMAGES [--train] --work-dir IMAGES/..

It uses one process and no reference statistics, and so reads the data set each time. A broken image is an error.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vq import cli, config, fid, packages, pretrained
from vq.data import ImageFolder, ImageLoader, UndecodableImage, UndecodableSetError
from vq.data.reader import Draw, SampleReader
from vq.engine.assembly.build import make_loader
from vq.engine.jobs.reference_statistics import (
    feature_view,
    preprocessing,
    record,
    reference_name,
    reference_section,
    set_sha256,
)
from vq.networks.frozen.inception import INCEPTION_WEIGHTS
from vq.ops.images import rgb_view, to_bytes


class Images(Dataset[Tensor]):
    """The images of a loader one by one, as torch-fidelity needs them.

    Args:
        loader: The images and their transforms.
        rgb: The channels that the network sees as red, green and blue; None for images of 3 channels.
    """

    def __init__(self, loader: ImageLoader, rgb: Sequence[int] | None = None) -> None:
        self._loader, self._rgb = loader, rgb
        self._reader = SampleReader(dataset=loader.dataset, transforms=loader.transforms, replace=False)

    def __len__(self) -> int:
        """The number of images."""
        return self._loader.num_samples

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """One image.

        Raises:
            ValueError: If it is broken, has other channels, or its size differs from that of the others.
        """
        sample = self._reader[Draw(0, 0, index)]
        if isinstance(sample, UndecodableImage):
            raise ValueError(f"cannot decode {sample}; repair or remove it")
        (image,) = rgb_view("evaluator.metrics", to_bytes(sample["image"])[None], self._rgb)
        if tuple(image.shape[1:]) != self._loader.image_size:
            raise ValueError(
                f"expected images of one size, got {tuple(image.shape[1:])} for {sample['key']!r} and "
                f"{self._loader.image_size} before; resize them"
            )
        return image


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.tool_parser(__doc__)
    parser.add_argument("dataset", metavar="DATASET", help="as for vq fid: imagenet, or a page")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the images, all of one size")
    parser.add_argument("--train", action="store_true", help="compare with the training images")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=cli.WORK_DIRS / "fid",
        help="the folder of torch_fidelity.jsonl",
    )
    parser.add_argument("--batch-size", type=int, default=50, help="images per batch (default: %(default)s)")
    parser.add_argument("--device", help="cuda or cpu (default: cuda if there is a GPU)")
    cli.add_config_changes(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Runs the command; returns the scores."""
    args = arguments().parse_args(argv)
    packages.require("torch_fidelity", needed_by="tools/fidelity.py")
    tree = fid.data_config(args).to_dict()
    try:
        return _compare(args, tree)
    except (UndecodableSetError, FileNotFoundError, ValueError) as error:
        raise cli.UsageError(str(error)) from error


def _compare(args: argparse.Namespace, tree: config.Tree) -> dict[str, float]:
    import torch_fidelity

    weights = pretrained.path(INCEPTION_WEIGHTS)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    node, section = reference_section(tree, train=args.train), "train_data" if args.train else "val_data"
    wanted = make_loader({section: node}, section)
    made = ImageLoader(dataset=ImageFolder(root=args.folder), batch_size=args.batch_size, shuffle=False)
    made.check()
    if min(made.num_samples, wanted.num_samples) < 2:
        raise ValueError(
            f"{args.folder}: expected at least two images for a covariance, got one; add more images"
        )
    found = torch_fidelity.calculate_metrics(
        input1=Images(made),
        input2=Images(wanted, feature_view(tree)),
        fid=True,
        isc=True,
        isc_splits=min(10, made.num_samples),
        feature_extractor_weights_path=str(weights),
        batch_size=args.batch_size,
        cuda=(args.device or ("cuda" if torch.cuda.is_available() else "cpu")).startswith("cuda"),
        cache=False,
    )
    # With other weights the numbers are not the FID.
    suffix = "" if sha256.startswith("6726825d") else f"[inception-{sha256[:8]}]"
    scores = {
        f"fid{suffix}": float(found["frechet_inception_distance"]),
        f"inception_score{suffix}": float(found["inception_score_mean"]),
        f"inception_score_std{suffix}": float(found["inception_score_std"]),
    }
    name, words = reference_name(tree, train=args.train), preprocessing(node)
    record(
        scores,
        {
            "protocol": f"torch-fidelity {torch_fidelity.__version__}",
            "extractor_sha256": sha256,
            "images": str(args.folder),
            "num_images": made.num_samples,
            "reference": name,
            "reference_images": wanted.num_samples,
            "reference_sha256": set_sha256(wanted.dataset, words),
            "preprocessing": words,
        },
        file=args.work_dir / "torch_fidelity.jsonl",
        title=f"{args.folder}: {made.num_samples} images against {name}, by torch-fidelity",
    )
    return scores


if __name__ == "__main__":
    cli.main(main)
