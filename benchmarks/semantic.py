"""The claims about semantic tokenizers, measured on emoji: `python benchmarks/semantic.py CLAIM RUN [RUN ...]`.

* `distillation RUN`: the cosine loss of VQ-KD falls to half of its value before the training, or lower, and over 90 %
  of the codes are used.
* `finetune BEFORE AFTER`: a decoder that was fine-tuned has a lower LPIPS (VGG), and no index has changed.
* `probe RUN [RUN ...]`: a linear probe of the first run's tokens knows the category better than one of pooled pixels
  (the mean of all patches of 8 x 8, or 4 x 4 of digits), with each seed. It is the probe of
  configs/probe/, over features that are computed once; `benchmarks/probe.py` trains it with the commands.
* `alignment PLAIN ALIGNED`: the probe of the aligned tokenizer is better on average over the seeds, and its PSNR is at
  most 0.5 dB lower.
* `generators RUN [RUN ...]`: generators over different tokens of the same pictures, by the Frechet distance of their
  images to the training set in two networks. The reconstructions of as many training images, and these images
  themselves, show which part of a distance is due to the decoder and to the number of images. There is no bar.
* `pictures RUN [RUN ...] --out FILE.png`: validation images above their reconstructions by each run.

RUN is the name of a run below work_dirs. Scores are those of the validation set. `--out` names the JSON file that gets
one more row, or the file of the pictures.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

import vq
from vq import config
from vq.data import DigitsDataset, EmojiDataset, ImageDataset, ImageLoader, Resize
from vq.engine import WarmupCosine, assembly
from vq.engine.evaluation.sampling import generate_images
from vq.metrics import PSNR, CodebookUsage, LPIPSMetric, TeacherCosine, update_metrics
from vq.networks import VGG16, EfficientNetLite0, EfficientNetTeacher
from vq.ops.frechet import frechet_distance_of_features
from vq.ops.images import grid, save_png, to_signed_unit, to_uint8
from vq.optimizers import LARS
from vq.probes import LinearProbe, PooledCodes, PooledPixels, ProbeFeatures
from vq.tokenizers import Tokenizer
from vq.tokenizers.checkpoint import find_weights, step_of

SIDE, BATCH = 64, 100


class Data(NamedTuple):
    kind: Callable[..., ImageDataset]
    side: int
    patch_size: int


DATA = {
    "emoji": Data(EmojiDataset, SIDE, 8),
    "digits": Data(DigitsDataset, 28, 4),
    "digits-32": Data(DigitsDataset, 32, 4),
}
LEAST_USAGE, LARGEST_COST_DB = 0.9, 0.5
PROBE_STEPS, SEEDS = 1000, 3


def images(split: str, data: str = "emoji") -> Tensor:
    """All images of a split, uint8."""
    kind, side = DATA[data].kind, DATA[data].side
    loader = ImageLoader(
        dataset=kind(split=split), transforms=[Resize(size=side)], batch_size=BATCH, shuffle=False
    )
    return torch.cat([batch["image"] for batch in loader.pass_batches()])


def labels(split: str, data: str = "emoji") -> Tensor:
    dataset = DATA[data].kind(split=split)
    return torch.tensor([dataset.label(i) for i in range(len(dataset))])


def run_of(name: str) -> Path:
    return Path("work_dirs") / name.removeprefix("work_dirs/")


def page_of(run: Path) -> dict[str, Any]:
    return config.load(run / "config.json").to_dict()


def step_count(run: Path) -> int:
    return step_of(find_weights(run).parent)


@torch.no_grad()
def scores(tokenizer: Tokenizer, metrics: Sequence[Any], data: str = "emoji") -> dict[str, float]:
    for batch in to_signed_unit(images("val", data)).split(BATCH):
        output = tokenizer(batch)
        decoded = output.reconstruction
        update_metrics(
            metrics,
            image=batch,
            reconstruction=decoded.clamp(-1, 1) if tokenizer.has_image_decoder else None,
            features=None if tokenizer.has_image_decoder else decoded,
            latent=output.latent,
            quantized=output.quantize.quantized,
            indices=output.quantize.indices,
        )
    return {name: value for metric in metrics for name, value in metric.compute().items()}


@torch.no_grad()
def indices(tokenizer: Tokenizer, split: str) -> Tensor:
    return torch.cat([tokenizer.encode(batch) for batch in images(split).split(BATCH)])


@torch.no_grad()
def cosine_of_mean() -> float:
    """The cosine loss of a prediction that is the same everywhere: the mean of the teacher's normalized features."""
    teacher = EfficientNetTeacher(image_size=2 * SIDE)
    features = torch.cat([teacher(batch) for batch in to_signed_unit(images("val")).split(BATCH)]).flatten(
        0, 2
    )
    directions = F.normalize(features, dim=1)
    return 1 - (directions @ F.normalize(directions.mean(dim=0), dim=0)).mean().item()


def distillation(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, bool]]:
    run = run_of(args.runs[0])
    trained = vq.load(run)
    untrained = assembly.make_tokenizer(page_of(run), seed=args.seed)
    with torch.no_grad():
        untrained.train()(
            to_signed_unit(images("train")[:BATCH])
        )  # k-means gives the codebook its first codes
    untrained.eval()

    def measured(tokenizer: Tokenizer) -> dict[str, float]:
        usage = CodebookUsage(codebook_size=trained.codebook_size)
        return scores(tokenizer, [TeacherCosine(teacher=EfficientNetTeacher(image_size=2 * SIDE)), usage])

    before, after = measured(untrained)["teacher_cosine"], measured(trained)
    figures = {
        "steps": step_count(run),
        "cosine_before": before,
        "cosine_of_mean_feature": cosine_of_mean(),
        **after,
        "codes": trained.codebook_size,
    }
    return figures, {
        "the cosine loss falls by half": after["teacher_cosine"] <= before / 2,
        "over 90 % of the codes": after["codebook_usage"] > LEAST_USAGE,
    }


def finetune(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, bool]]:
    before, after = (vq.load(run_of(name)) for name in args.runs)
    changed = {
        split: int((indices(before, split) != indices(after, split)).sum()) for split in ("train", "val")
    }
    figures: dict[str, Any] = {"steps": [step_count(run_of(name)) for name in args.runs], "changed": changed}
    for name, tokenizer in (("before", before), ("after", after)):
        figures[name] = scores(tokenizer, [LPIPSMetric(network="vgg"), PSNR()])
    return figures, {
        "LPIPS is lower": figures["after"]["lpips_vgg"] < figures["before"]["lpips_vgg"],
        "no index has changed": not any(changed.values()),
    }


def probed(features: ProbeFeatures, seeds: Sequence[int], data: str = "emoji") -> dict[str, Any]:
    """The accuracy of a linear probe with each seed: over all images, and the mean over the classes."""
    train, val = (
        torch.cat([features(batch) for batch in images(split, data).split(BATCH)])
        for split in ("train", "val")
    )
    train_labels, val_labels = labels("train", data), labels("val", data)
    found: dict[str, Any] = {"dim": features.dim, "top1": [], "class_mean_top1": []}
    for seed in seeds:
        torch.manual_seed(seed)
        probe = LinearProbe(features=features, num_classes=10)
        optimizer, schedule = LARS(probe.parameters(), lr=1.6), WarmupCosine(total_steps=PROBE_STEPS)
        for step in range(PROBE_STEPS):
            rows = torch.randint(len(train), (256,))
            optimizer.param_groups[0]["lr"] = 1.6 * schedule.factor(step)
            optimizer.zero_grad()
            F.cross_entropy(probe(train[rows]), train_labels[rows]).backward()
            optimizer.step()
        right = (probe.eval()(val).argmax(dim=1) == val_labels).double()
        found["top1"].append(right.mean().item())
        classes = [right[val_labels == label].mean() for label in val_labels.unique()]
        found["class_mean_top1"].append(torch.stack(classes).mean().item())
    return found


def probe(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, bool]]:
    seeds, patch_size = range(args.seed, args.seed + SEEDS), DATA[args.data].patch_size
    found: dict[str, Any] = {"data": args.data, "probe_steps": PROBE_STEPS}
    found["pixels"] = probed(PooledPixels(patch_size=patch_size), seeds, args.data)
    for name in args.runs:
        features = PooledCodes(tokenizer=vq.load(run_of(name)))
        found[name] = {"steps": step_count(run_of(name)), **probed(features, seeds, args.data)}
    tokens, pixels = found[args.runs[0]], found["pixels"]
    return found, {
        f"{score}: tokens beat pooled pixels with each seed": min(tokens[score]) > max(pixels[score])
        for score in ("top1", "class_mean_top1")
    }


def alignment(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, bool]]:
    seeds, found = range(args.seed, args.seed + SEEDS), []
    for name in args.runs:
        tokenizer = vq.load(run_of(name))
        figures = {"run": name, "steps": step_count(run_of(name)), **scores(tokenizer, [PSNR()], args.data)}
        found.append(figures | probed(PooledCodes(tokenizer=tokenizer), seeds, args.data))
    plain, aligned = found
    return {"data": args.data, "probe_steps": PROBE_STEPS, "plain": plain, "aligned": aligned}, {
        "the probe is better": sum(aligned["top1"]) > sum(plain["top1"]),
        "at most 0.5 dB": plain["psnr"] - aligned["psnr"] <= LARGEST_COST_DB,
    }


def drawn(run: Path, wanted: Tensor, seed: int) -> tuple[Tensor, Tokenizer]:
    """The images that a run's generator draws for the labels, and its tokenizer."""
    page = page_of(run)
    tokenizer = assembly.make_frozen_tokenizer(page)
    generator, sampling = vq.load_generator(run), assembly.make_sampling(page, {})
    seeds = torch.arange(len(wanted)) + seed * len(wanted)
    parts = [
        generate_images(generator, tokenizer, label, keys, sampling=sampling)
        for label, keys in zip(wanted.split(BATCH), seeds.split(BATCH), strict=True)
    ]
    return torch.cat(parts), tokenizer


def features_of(found: Tensor) -> dict[str, Tensor]:
    """The features of uint8 images in both networks, by the network's name."""
    networks = (EfficientNetLite0(size=SIDE), VGG16(size=SIDE))
    return {net.name: torch.cat([net(batch)["pool"] for batch in found.split(BATCH)]) for net in networks}


def distances(found: Tensor, real: dict[str, Tensor]) -> dict[str, float]:
    """The Frechet distances of uint8 images to the features of real ones."""
    features = features_of(found)
    return {name: frechet_distance_of_features(features[name], real[name]).item() for name in real}


def generators(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, bool]]:
    real = images("train")
    reference = features_of(real)
    chosen = torch.randperm(len(real), generator=torch.Generator().manual_seed(args.seed))[: args.images]
    figures: dict[str, Any] = {"images": args.images, "reference_images": len(real)}
    figures["real images"] = distances(real[chosen], reference)
    for name in args.runs:
        run = run_of(name)
        generated, tokenizer = drawn(run, labels("train")[chosen], args.seed)
        with torch.no_grad():
            decoded = [to_uint8(tokenizer.decode(tokenizer.encode(x))) for x in real[chosen].split(BATCH)]
        figures[name] = {
            "steps": step_count(run),
            "vocabulary": tokenizer.codebook_size,
            "generated": distances(generated, reference),
            "reconstructed": distances(torch.cat(decoded), reference),
        }
        print(name, json.dumps(figures[name]), flush=True)
    return figures, {}


@torch.no_grad()
def pictures(args: argparse.Namespace) -> None:
    found = images("val")
    chosen = found[torch.linspace(0, len(found) - 1, args.images).long()]
    rows = [chosen]
    for name in args.runs:
        tokenizer = vq.load(run_of(name))
        rows.append(to_uint8(tokenizer.decode(tokenizer.encode(chosen))))
    save_png(grid(torch.cat(rows), columns=args.images), args.out)


CLAIMS: dict[str, Callable[[argparse.Namespace], tuple[dict[str, Any], dict[str, bool]]]] = {
    "distillation": distillation,
    "finetune": finetune,
    "probe": probe,
    "alignment": alignment,
    "generators": generators,
}


def append(row: dict[str, Any], path: Path) -> None:
    rows = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*rows, row], indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("claim", choices=[*CLAIMS, "pictures"])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument(
        "--images", type=int, default=1000, help="of generators and pictures (default %(default)s)"
    )
    parser.add_argument(
        "--data", choices=DATA, default="emoji", help="of probe and alignment (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.claim == "pictures":
        pictures(args)
        return 0
    figures, bars = CLAIMS[args.claim](args)
    print(json.dumps(figures, indent=1))
    for bar, holds in bars.items():
        print(f"{'ok    ' if holds else 'MISSED'} {bar}")
    if args.out:
        about = {
            "claim": args.claim,
            "command": "python " + " ".join(sys.argv),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            "seed": args.seed,
        }
        append(about | {"figures": figures, "bars": bars}, args.out)
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
