"""Generates images: `vq generate NAME [CONFIG] --load-from iter_N --classes 207 360 --num 16`."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import cli, zoo
from vq.run_config import NETWORKS, config_for

if TYPE_CHECKING:
    from vq.engine.jobs.generation import DrawImages

logger = logging.getLogger("vq.generate")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "generate",
        "Samples images of the given classes from the generator of a run, and writes a PNG of each, a grid, and "
        "samples.json to work_dirs/NAME/generated/CHECKPOINT. An image depends only on the seed, its class and its "
        "number. Started again, it generates what is missing; under torchrun the ranks share the work, "
        "and with --engine ray the workers of a Ray cluster.",
        "vq generate ar/llama_digits --classes 3 7 --num 16 --cfg 2 --seed 0\n"
        "  vq generate zoo:llamagen/c2i_B_256 --classes 207 360 --num 16 --cfg 2",
    )
    cli.add_run(parser, exists=True)
    cli.add_machine(parser)
    cli.add_engine(parser)
    parser.add_argument("--load-from", metavar="iter_N", help="the checkpoint (default: the newest)")
    parser.add_argument("--classes", type=int, nargs="+", help="class numbers (default: all)")
    parser.add_argument(
        "--num",
        "--num-images",
        type=cli.positive,
        help="images in total, cycling through the classes (torchrun takes --num for itself: use --num-images there)",
    )
    parser.add_argument("--num-per-class", type=cli.positive, help="images per class, as for a gFID")
    parser.add_argument("--cfg", type=float, help="guidance scale; 1 is no guidance (default: the page's)")
    parser.add_argument("--temperature", type=float, help="default: the page's")
    parser.add_argument("--top-k", type=int, help="sample from the k most likely indices only")
    parser.add_argument(
        "--top-p", type=float, help="sample from the most likely indices whose probabilities sum to p"
    )
    parser.add_argument(
        "--weight-dtype",
        choices=["bfloat16", "int8", "float8"],
        help="converts the weights of the generator for speed; images change by rounding (docs/generators.md)",
    )
    parser.add_argument("--seed", type=int, default=0, help="base seed (default 0)")
    parser.add_argument(
        "--batch-size",
        type=cli.positive,
        default=32,
        help="images generated at a time, per rank (default 32)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the command; returns the grid's file."""
    args = arguments().parse_args(argv)
    cli.check_engine(args)
    if zoo.is_name(args.name):
        run, config = _published(args)
    else:
        run = cli.run_directory(args.name)
        config = config_for(args, run=run, compared=NETWORKS)
    if "generator" not in config:
        raise cli.UsageError(
            f"{args.config or run}: has no section generator; give a run that trained a generator"
        )
    if args.num is not None and args.num_per_class is not None:
        raise cli.UsageError("--num and --num-per-class exclude each other; give one of them")
    if args.weight_dtype is not None and args.autocast:
        raise cli.UsageError("--weight-dtype and --autocast exclude each other; give one of them")
    cli.check_out(args.out)

    from vq.engine.loop.launch import launched, open_log

    with cli.ends_on_signal(), launched(device=cli.own_device(args), autocast=args.autocast) as machine:
        open_log(None)
        logger.info("%s", machine)
        return _generate(args, run, config, machine.device)


def _published(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The folder and the config for a published generator, with its tokenizer.

    Raises:
        UsageError: If a config, changes to one or a checkpoint are given too, or it is not a generator.
    """
    family, model = zoo.find(args.name)
    if args.config or args.load_from or args.override or args.config_options or args.weights:
        raise cli.UsageError(
            f"{args.name}: expected neither CONFIG, --load-from nor changes of the config, since the name says all"
        )
    if model.tokenizer is None:
        raise cli.UsageError(f"{args.name}: expected a generator, got a tokenizer; use `vq inference`")
    tokenizer = {"type": "vq.tokenizers.pretrained_tokenizer", "weights": [f"{zoo.PREFIX}{model.tokenizer}"]}
    return cli.WORK_DIRS / "zoo" / family.name / model.name, {
        **model.config,
        "tokenizer": tokenizer,
        "evaluator": {},
    }


def _generate(args: argparse.Namespace, run: Path, config: dict[str, Any], device: str) -> Path:
    import torch

    from vq.engine import assembly
    from vq.engine.evaluation.progress import PassProgress
    from vq.engine.jobs import generation
    from vq.files import sha256_of
    from vq.generators import convert_weights
    from vq.tokenizers.checkpoint import find_weights, load_weights

    kept = run / "checkpoints" / args.load_from if args.load_from else run
    weights = find_weights(args.name if zoo.is_name(args.name) else kept)
    model: Any = assembly.make_model(config).to(device).eval()
    tokenizer = assembly.make_frozen_tokenizer(config).to(device)
    load_weights(model, [weights])
    settings = {"weights": str(weights), "weights_sha256": sha256_of(weights)}
    if args.weight_dtype is not None:
        count = convert_weights(model, args.weight_dtype)
        logger.info("%s: %s weights of the generator", args.weight_dtype, f"{count:,}")
        settings["weight_dtype"] = args.weight_dtype
    sampling = assembly.make_sampling(
        config,
        {"guidance": args.cfg, "temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p},
    )
    classes = _classes(args, model.num_classes)
    wanted = generation.plan(classes, num=args.num, num_per_class=args.num_per_class)
    folder = args.out or run / "generated" / ("published" if zoo.is_name(args.name) else weights.parent.name)
    with (
        _drawing(args) as draw,
        PassProgress("generate", len(wanted)) as progress,
        torch.autocast(torch.device(device).type, torch.bfloat16, enabled=args.autocast),
    ):
        picture = generation.write_images(
            generation.ImageSource(
                generator=model,
                tokenizer=tokenizer,
                sampling=sampling,
                seed=args.seed,
                rgb=(config.get("evaluator") or {}).get("rgb"),
            ),
            wanted,
            folder,
            batch_size=args.batch_size,
            settings=settings,
            on_progress=progress.advance,
            draw=draw,
        )
    logger.info("wrote %d images and %s", len(wanted), picture)
    return picture


def _classes(args: argparse.Namespace, num_classes: int) -> list[int]:
    """The classes that were asked for, or all of them."""
    classes = args.classes if args.classes is not None else list(range(num_classes))
    if wrong := [c for c in classes if not 0 <= c < num_classes]:
        raise cli.UsageError(f"--classes: expected numbers in [0, {num_classes}), got {wrong}")
    return list(classes)


@contextmanager
def _drawing(args: argparse.Namespace) -> Iterator["DrawImages"]:
    """What draws the images: this process, or inside the block the workers of a Ray cluster."""
    from vq.engine.jobs.generation import draw_images

    with cli.ray_workers(args) as workers:
        if workers is None:
            yield draw_images
        else:
            from vq.engine.on_ray import RayImages

            yield RayImages(workers=workers)


if __name__ == "__main__":
    cli.main(main)
