"""Validates one checkpoint by its path: `vq test NAME [CONFIG] --load-model-from F`, or `vq test zoo:NAME`."""

import argparse
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq import cli, config, zoo
from vq.run_config import config_for
from vq.zoo.entry import Crop, Scores
from vq.zoo.expectations import comparison

PAGES = {"imagenet": "ImageNet val", "photos": "photographs of Python packages"}
"""What `--data` takes: the page `zoo/WORD`, and what its validation images are."""
CROPS: dict[tuple[str, ...], Crop] = {("Resize", "CenterCrop"): "centre", ("ADMCenterCrop",): "adm"}
"""The catalogue's words for the transforms of a page."""
REFERENCES = {"imagenet_val": "ImageNet val", "imagenet_adm_val": "ImageNet val"}
"""The catalogue's words for reference statistics."""
MAX_CODES = 2**24
"""The largest codebook whose codes are counted."""
MAX_PHOTO = 256
"""The largest crops of photographs, in pixels, unless `image_size` asks for others."""

logger = logging.getLogger("vq.test")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "test",
        "Validates one checkpoint, given by its path, and writes work_dirs/NAME/test/metrics.json and pictures. For a "
        "published model, NAME is zoo:FAMILY/MODEL, and neither a CONFIG nor weights are needed.",
        "vq test fsq/1000_emoji --load-model-from work_dirs/fsq/1000_emoji/checkpoints/iter_1000\n"
        "  vq test zoo:llamagen/vq_ds16_c2i --data imagenet --expect",
    )
    parser.add_argument(
        "--data",
        choices=sorted(PAGES),
        help="the images on which a published model is scored (default: imagenet)",
    )
    parser.add_argument(
        "--expect",
        action="store_true",
        help="also print the published scores of a published model beside ours",
    )
    cli.add_run(parser, exists=True)
    cli.add_machine(parser)
    cli.add_weights(parser)
    cli.add_visual(parser)
    cli.add_tokenize(parser)
    cli.add_wandb(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Runs the command; returns the scores."""
    args = arguments().parse_args(argv)
    if zoo.is_name(args.name):
        args.data = args.data or "imagenet"
        run, tree = _published(args)
    elif args.expect or args.data:
        option = "--expect" if args.expect else "--data"
        raise cli.UsageError(f"{option}: expected the name of a published model (zoo:...), got {args.name}")
    elif not args.load_model_from:
        raise cli.UsageError(f"{args.name}: expected --load-model-from F, the checkpoint to score, got none")
    else:
        run = cli.run_directory(args.name)
        tree = config_for(args, run=None, weights=args.load_model_from)

    from vq.engine.jobs.scoring import scorer_of
    from vq.engine.loop.launch import launched, open_log

    with cli.ends_on_signal(), launched(device=args.device, autocast=args.autocast) as machine:
        given, folder = cli.given_weights(args, args.load_model_from), run / "test"
        step = _step(given.files()[-1])
        open_log(folder / "log.txt")
        logger.info("%s", machine)
        with scorer_of(
            tree,
            folder,
            machine,
            wandb=cli.wandb_names(args, f"{args.name}-test"),
            visual=args.visual,
            is_tokenized=args.tokenize,
        ) as scorer:
            scores = scorer.score(given, folder, step=step)
    if args.expect:
        _, model = zoo.find(args.name)
        cli.say(*comparison(model, _ours(args, tree, scores)))
        cli.say(f"{folder / 'metrics.json'}: the protocol of each score here")
    return scores


def _ours(args: argparse.Namespace, tree: Mapping[str, Any], scores: Mapping[str, float]) -> Scores:
    """Our scores and how they were computed, in the words of the catalogue."""
    _, model = zoo.find(args.name)
    references = [metric.get("reference") for metric in tree["evaluator"]["metrics"]]
    return Scores(
        values=scores,
        data=PAGES[args.data],
        source="vq test",
        size=_image_size(args, model.resolution),
        crop=CROPS.get(tuple(node["type"].rpartition(".")[2] for node in tree["val_data"]["transforms"])),
        reference=next((REFERENCES.get(name, name) for name in references if name), None),
    )


def _published(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The folder and the config for a published model; its weights become those of the command line.

    Raises:
        UsageError: If a CONFIG or weights are given too, or it is not a tokenizer.
    """
    family, model = zoo.find(args.name)
    if args.config is not None or args.load_model_from:
        raise cli.UsageError(
            f"{args.name}: expected neither CONFIG nor --load-model-from, since the name says both; give another NAME "
            "to combine them"
        )
    if "tokenizer" not in model.config:
        raise cli.UsageError(f"{args.name}: expected a tokenizer, got a generator; use `vq generate`")
    args.load_model_from = [args.name]
    given = config.parse_assignments(args.config_options)
    overrides = config.parse_assignments(args.override)
    if (
        args.weights
        or "it_state_dict" in given
        or any(key.lstrip(".").startswith("tokenizer") for key in overrides)
    ):
        raise cli.UsageError(
            f"{args.name}: expected the tokenizer as it was published, got options that change it; write a page "
            "with pretrained_tokenizer to change it"
        )
    section = dict(model.config["tokenizer"])
    codes, has_images = _codes_and_images(section)
    options = {"image_size": _image_size(args, model.resolution), "codebook_size": codes, **given}
    if args.data == "imagenet" and "crop" not in given:
        options["crop"] = next((row.crop for row in model.scores if row.crop), "centre")
    tree = config.load(f"zoo/{args.data}", options=options, overrides=overrides).to_dict()
    tree["tokenizer"] = section
    metrics = tree["evaluator"]["metrics"]
    if codes > MAX_CODES:
        logger.info("codebook usage and perplexity are left out: %d codes cannot be counted", codes)
        metrics = [metric for metric in metrics if "codebook_size" not in metric]
    if not has_images:
        logger.info("metrics of images are left out: %s has no image decoder", args.name)
        metrics = [metric for metric in metrics if "codebook_size" in metric]
    tree["evaluator"]["metrics"] = metrics
    return cli.WORK_DIRS / "zoo" / family.name / model.name / args.data, tree


def _codes_and_images(section: Mapping[str, Any]) -> tuple[int, bool]:
    """The number of codes of a tokenizer, which is not built in memory, and whether it has an image decoder."""
    import torch

    from vq.registry import build

    with torch.device("meta"):
        tokenizer = build(section, path="tokenizer")
    return tokenizer.codebook_size, tokenizer.has_image_decoder


def _image_size(args: argparse.Namespace, resolution: int) -> int:
    """The height and width of the images that were scored."""
    usual = resolution if args.data == "imagenet" else min(resolution, MAX_PHOTO)
    return int(config.parse_assignments(args.config_options).get("image_size", usual))


def _step(weights: Path) -> int:
    """The step in the name of a weight file's folder, 0 if it is not that of a checkpoint."""
    from vq.tokenizers.checkpoint import step_of

    return step_of(weights.parent) if re.fullmatch(r"iter_\d+", weights.parent.name) else 0


if __name__ == "__main__":
    cli.main(main)
