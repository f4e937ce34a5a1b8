"""Evaluates published models with `vq.test`, and compares every score with the published one.

    python docs/reproducing/published.py [--only taming] [--device cuda]
    python docs/reproducing/published.py --zoo "*" [--device cuda]

Without --zoo these are the two models of the reference framework; if ImageNet, weights or statistics are missing, it
lists them with the command that provides them and evaluates nothing. With --zoo these are the tokenizers of the
catalogue (docs/zoo.md) whose published files are on this machine.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A published row of scores, and what it takes to reproduce it.

    Attributes:
        config: The page.
        weights: A file in the format of this project.
        needs: Path -> the command or the place that provides it.
        published: Score -> its value, and the difference that is allowed.
    """

    config: str
    weights: str
    needs: Mapping[str, str]
    published: Mapping[str, tuple[float, float]]


VQKD = "pretrained/beitv2/vqkd_encoder_base_decoder_1x768x12_clip.pth"
IMAGENET = {"data/imagenet/val": "ImageNet from https://image-net.org, as data/imagenet/val/<wnid>/*.JPEG"}
LINES = {
    "taming": Line(
        config="configs/vqgan/16384_dd2_aglwg075_imagenet_ddp.py",
        weights="pretrained/taming/vqgan_imagenet_f16_16384.safetensors",
        needs=IMAGENET
        | {
            "pretrained/taming/vqgan_imagenet_f16_16384.safetensors": "python tools/convert_checkpoints.py taming "
            "last.ckpt --config configs/vqgan/16384_dd2_aglwg075_imagenet_ddp.py --out "
            "pretrained/taming/vqgan_imagenet_f16_16384.safetensors, from the model vqgan_imagenet_f16_16384 of "
            "https://github.com/CompVis/taming-transformers",
            "pretrained/inception/pt_inception-2015-12-05-6726825d.pth": "vq weights inception",
            "pretrained/lpips/vgg.safetensors": "vq weights lpips",
            "pretrained/fid/imagenet_val.npz": "vq fid imagenet",
        },
        # Printed with four digits; FID also moves with the resizing of the images and the decoder of JPEG files.
        published={
            "lpips_vgg": (0.2832, 0.002),
            "l1_unit": (0.0681, 0.0005),
            "mse_unit": (0.01318, 0.0002),
            "psnr": (19.97, 0.05),
            "fid": (4.981, 0.1),
            "codebook_usage": (0.0593, 0.0005),
            "perplexity": (909.0, 10.0),  # published as its logarithm, 6.812
        },
    ),
    "vqkd": Line(
        config="configs/vqkd/clip_8192_imagenet_ddp.py",
        weights=f"{VQKD}.converted.with_decoder",
        needs=IMAGENET
        | {
            VQKD: "vq weights beitv2",
            f"{VQKD}.converted.with_decoder": f"python tools/convert_checkpoints.py beitv2 {VQKD} "
            "--options with_decoder:True --suffix .converted.with_decoder",
            "pretrained/clip/ViT-B-16.pt": "vq weights clip",
        },
        published={
            "codebook_usage": (1.0, 0.0005),
            "perplexity": (7694.0, 20.0),  # published as its logarithm, 8.948
            "teacher_cosine": (0.1643, 0.002),
        },
    ),
}


def missing(line: Line) -> dict[str, str]:
    """The paths that do not exist, and what provides them."""
    return {path: cure for path, cure in line.needs.items() if not Path(path).exists()}


def compare(line: Line, scores: Mapping[str, float], console: Console) -> bool:
    """Prints the scores beside the published ones; returns whether all agree."""
    table = Table("score", "published", "here", "allowed", "")
    verdicts = []
    for name, (wanted, allowed) in line.published.items():
        found = scores.get(name, float("nan"))
        verdicts.append(abs(found - wanted) <= allowed)  # false for nan
        table.add_row(
            name, f"{wanted:g}", f"{found:.5g}", f"{allowed:g}", "agrees" if verdicts[-1] else "DIFFERS"
        )
    console.print(table)
    return all(verdicts)


def evaluate_zoo(pattern: str, words: Sequence[str]) -> int:
    """Scores the tokenizers whose files are on this machine; returns 2 if there are none."""
    from vq import zoo
    from vq.tokenizers.published import located

    status = 2
    for name in zoo.names(pattern):
        family, model = zoo.find(name)
        if "tokenizer" in model.config and located(family, model) is not None:
            importlib.import_module("vq.test").main([f"{zoo.PREFIX}{name}", "--expect", *words])
            status = 0
        else:
            Console(highlight=False).print(f"{name}: not run; its file is not on this machine")
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates the models; returns 0 if all scores agree, 1 if one differs, 2 if something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(LINES), help="evaluate one of the two models")
    parser.add_argument("--device", help="cuda, cpu, ...")
    parser.add_argument(
        "--zoo", metavar="PATTERN", help="evaluate the tokenizers of docs/zoo.md with such names"
    )
    args = parser.parse_args(argv)
    if args.zoo:
        return evaluate_zoo(args.zoo, ["--device", args.device] if args.device else [])
    console = Console(soft_wrap=True, highlight=False)
    status = 0
    for name, line in LINES.items():
        if args.only not in (None, name):
            continue
        console.rule(name)
        if lacking := missing(line):
            console.print("not run; missing:")
            for path, cure in lacking.items():
                console.print(f"  {path}: {cure}", markup=False)
            status = max(status, 2)
            continue
        device = ["--device", args.device] if args.device else []
        words = [f"reproducing/{name}", line.config, "--load-model-from", line.weights, *device]
        scores = importlib.import_module("vq.test").main(words)
        if not compare(line, scores, console):
            status = max(status, 1)
    return status


if __name__ == "__main__":
    sys.exit(main())
