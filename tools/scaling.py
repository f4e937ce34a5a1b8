"""Hours, disk and cost of a job over many images, and what limits its speed: arithmetic, nothing is run.

    python -m tools.scaling                                        # the table of docs/scaling.md
    python -m tools.scaling --images 5e7 --gpus 16 --gpu-rate 900 --core-rate 1100 --cores-per-gpu 12

Three parts work at the same time, so the slowest decides: GPUs compute, processor cores decode JPEG files, and the
storage delivers them. The defaults are estimates; docs/scaling.md says where each comes from. Give your own rates.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vq import cli

SETS = {"ImageNet-21k": 14_200_000, "1 B images": 1_000_000_000}
JOBS = {"tokenize": 2144.0, "train, 1 epoch": 213.0}
"""Images per second of one H100 at 256 px: 30 % of 989 TFLOP/s, over 138 and 1,390 GFLOP per image (LlamaGen f16)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job over a set of images, and the rates that decide its time.

    Attributes:
        images: How many images the job reads.
        gpus: How many GPUs compute.
        gpu_rate: Images per second that one GPU computes.
        cores_per_gpu: Processor cores that decode for one GPU.
        core_rate: Images per second that one core decodes and resizes.
        storage: Bytes per second that the storage delivers to all machines together.
        file_bytes: Bytes of one image file.
        token_bytes: Bytes of one image in the token store; 0 if the job writes none.
        price: Cost of one GPU with its cores for an hour.
    """

    images: float
    gpus: int = 8
    gpu_rate: float = JOBS["tokenize"]
    cores_per_gpu: float = 16
    core_rate: float = 1100.0
    storage: float = 2e9
    file_bytes: float = 110e3
    token_bytes: float = 518.0
    price: float = 2.5

    def rates(self) -> dict[str, float]:
        """Images per second that each part could process if it worked alone."""
        return {
            "GPUs": self.gpus * self.gpu_rate,
            "decoding": self.gpus * self.cores_per_gpu * self.core_rate,
            "storage": self.storage / self.file_bytes,
        }

    def limit(self) -> str:
        """The part with the lowest rate."""
        rates = self.rates()
        return min(rates, key=rates.__getitem__)

    def hours(self) -> float:
        """Hours at the rate of the slowest part."""
        return self.images / self.rates()[self.limit()] / 3600

    def cost(self) -> float:
        """Cost of all GPUs for these hours."""
        return self.hours() * self.gpus * self.price

    def row(self, title: str, job: str) -> str:
        """A row of the table."""
        tokens = f"{self.images * self.token_bytes / 1e9:,.1f} GB" if self.token_bytes else "-"
        files = f"{self.images * self.file_bytes / 1e12:,.1f} TB"
        cells = (title, job, self.gpus, f"{self.rates()[self.limit()]:,.0f}", f"{self.hours():,.1f}",
                 f"{self.cost():,.0f}", files, tokens, self.limit())  # fmt: skip
        return "| " + " | ".join(map(str, cells)) + " |"


HEADER = """\
| images | job | GPUs | images/s | hours | cost ($) | files | token store | limit |
|---|---|---:|---:|---:|---:|---:|---:|---|"""


def table(common: Plan, gpus: Sequence[int] = (8, 64)) -> str:
    """The jobs over both sets, on several numbers of GPUs."""
    rows = [HEADER]
    for title, images in SETS.items():
        for job, rate in JOBS.items():
            for count in gpus:
                tokens = common.token_bytes if job == "tokenize" else 0.0
                plan = replace(common, images=images, gpus=count, gpu_rate=rate, token_bytes=tokens)
                rows.append(plan.row(title, job))
    return "\n".join(rows)


def _rate(text: str) -> float:
    number = float(text)  # argparse reports a ValueError
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    parser = cli.tool_parser(__doc__)
    default = Plan(images=0)
    parser.add_argument("--images", type=_rate, help="default: the table of both sets and both jobs")
    parser.add_argument("--gpus", type=cli.positive, help="default: 8, and 64 too in the table")
    for name, words in {
        "gpu_rate": "images/s that one GPU computes",
        "cores_per_gpu": "cores that decode for one GPU",
        "core_rate": "images/s that one core decodes",
        "storage": "bytes/s of the storage",
        "file_bytes": "bytes of one image file",
        "token_bytes": "bytes of one image in the token store",
        "price": "cost of one GPU for an hour",
    }.items():
        value = getattr(default, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(
            option, type=_rate, default=argparse.SUPPRESS, help=f"{words} (default {value:g})"
        )
    given = vars(parser.parse_args(argv))
    images, gpus = given.pop("images"), given.pop("gpus")
    if images is not None:
        plan = Plan(images=images, gpus=gpus or default.gpus, **given)
        cli.say(*HEADER.splitlines(), plan.row(f"{images:,.0f}", "-"))
        return
    if "gpu_rate" in given:
        raise cli.UsageError(
            "--gpu-rate: expected --images beside it, because the jobs of the table have different rates"
        )
    cli.say(*table(Plan(images=0, **given), (8, 64) if gpus is None else (gpus,)).splitlines())


if __name__ == "__main__":
    cli.main(main)
