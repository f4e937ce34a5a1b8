"""Generates images: `vq generate NAME [CONFIG] --load-from iter_N --classes 207 360 --num 16`."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq import cli
from vq.run_config import NETWORKS, config_for

logger = logging.getLogger("vq.generate")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "generate",
        "Samples images of the given classes from the generator of a run, and writes a PNG of each, a grid, and "
        "samples.json to work_dirs/NAME/generated/CHECKPOINT. An image depends only on the seed, its class and its "
        "number. Started again, it generates what is missing; under torchrun the ranks share the work.",
        "vq generate ar/llama_digits --classes 3 7 --num 16 --cfg 2 --seed 0",
    )
    cli.add_run(parser, exists=True)
    cli.add_machine(parser)
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
    run = cli.run_directory(args.name)
    config = config_for(args, run=run, compared=NETWORKS)
    if "generator" not in config:
        raise cli.UsageError(
            f"{args.config or run}: has no section generator; give a run that trained a generator"
        )
    if args.num is not None and args.num_per_class is not None:
        raise cli.UsageError("--num and --num-per-class exclude each other; give one of them")
    cli.check_out(args.out)

    from vq.engine.loop.launch import launched, open_log

    with cli.ends_on_signal(), launched(device=args.device, autocast=args.autocast) as machine:
        open_log(None)
        logger.info("%s", machine)
        return _generate(args, run, config, machine.device)


def _generate(args: argparse.Namespace, run: Path, config: dict[str, Any], device: str) -> Path:
    import torch

    from vq.engine import assembly
    from vq.engine.evaluation.progress import PassProgress
    from vq.engine.jobs import generation
    from vq.files import sha256_of
    from vq.tokenizers.checkpoint import find_weights, load_weights

    weights = find_weights(run / "checkpoints" / args.load_from if args.load_from else run)
    model: Any = assembly.make_model(config).to(device).eval()
    tokenizer = assembly.make_frozen_tokenizer(config).to(device)
    load_weights(model, [weights])
    classes = args.classes if args.classes is not None else list(range(model.num_classes))
    if wrong := [c for c in classes if not 0 <= c < model.num_classes]:
        raise cli.UsageError(f"--classes: expected numbers in [0, {model.num_classes}), got {wrong}")
    sampling = assembly.make_sampling(
        config,
        {"guidance": args.cfg, "temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p},
    )
    wanted = generation.plan(classes, num=args.num, num_per_class=args.num_per_class)
    folder = args.out or run / "generated" / weights.parent.name
    progress = PassProgress("generate", len(wanted))
    with progress, torch.autocast(torch.device(device).type, torch.bfloat16, enabled=args.autocast):
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
            settings={"weights": str(weights), "weights_sha256": sha256_of(weights)},
            on_progress=progress.advance,
        )
    logger.info("wrote %d images and %s", len(wanted), picture)
    return picture


if __name__ == "__main__":
    cli.main(main)
