"""The arguments that commands share, and the end of a command on an error.

Nothing here imports torch, so that a misspelt key is reported before the slow part of a program begins.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import config, failures, packages
from vq.errors import ConfigError
from vq.parsing import UsageError, parser, pattern, positive, subparser, tool_parser
from vq.text import printable, suggest

if TYPE_CHECKING:
    from mmengine.config import Config

    from vq.engine.jobs.given_weights import GivenWeights
    from vq.engine.on_ray import Workers

__all__ = [
    "WORK_DIRS",
    "UsageError",
    "add_as_given",
    "add_config_changes",
    "add_engine",
    "add_machine",
    "add_run",
    "add_tokenize",
    "add_tuning",
    "add_visual",
    "add_wandb",
    "add_weights",
    "check_engine",
    "check_out",
    "ends_on_signal",
    "given_weights",
    "known_runs",
    "load_config",
    "main",
    "own_device",
    "parser",
    "positive",
    "ray_workers",
    "run_directory",
    "run_names",
    "say",
    "subparser",
    "tool_parser",
    "wandb_names",
]

WORK_DIRS = Path("work_dirs")
CALLBACKS = ".trainer.callbacks"
NON_STRICT = f"{CALLBACKS}[-1].load_state_dict:dict(strict=False)"
"""The override that the reference framework has for weights that lack entries or have others."""


def add_run(parser: argparse.ArgumentParser, *, exists: bool = False) -> None:
    """Adds NAME and CONFIG, and the options that change the config.

    Args:
        parser: The parser of a command.
        exists: Whether the run must exist. CONFIG must then agree with it (`vq.run_config`).
    """
    parser.add_argument("name", metavar="NAME", help="the run, whose folder is work_dirs/NAME")
    default = "the config that the run was trained with, including its overrides"
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="a file, or a page that `vq configs` lists, such as fsq/1000_emoji; default: "
        + (
            f"{default}. A CONFIG that differs in data, tokenizer, generator or probe is refused"
            if exists
            else f"for a run that exists (--auto-resume, --load-from), {default}"
        ),
    )
    if exists:
        add_as_given(parser)
    add_config_changes(parser)


def add_as_given(parser: argparse.ArgumentParser) -> None:
    """Adds `--as-given`."""
    parser.add_argument(
        "--as-given",
        action="store_true",
        help="use CONFIG even if it differs from the one that the weights were trained with",
    )


def add_config_changes(parser: argparse.ArgumentParser) -> None:
    """Adds `--config-options`, `--override` and `--weights`."""
    parser.add_argument(
        "--config-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY:VALUE",
        help="values of the options that the page declares (options = dict(...)), set before it runs; "
        "image_size:128 sets a literal (a number, None, [1, 2], dict(a=1)), teacher::clip a string",
    )
    parser.add_argument(
        "--override",
        nargs="+",
        action=_Override,
        default=[],
        metavar=".PATH:VALUE",
        help="values assigned after the page ran: .trainer.max_steps:8 .evaluator.metrics[0].network::vgg; "
        "literals are parsed and never evaluated",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=PATH",
        help="new paths of weights that the config refers to, such as tokenizer=work_dirs/NAME; their SHA-256 must be "
        "the recorded one",
    )


class _Override(argparse.Action):
    """Collects overrides; `NON_STRICT` is none, and stands for `--allow-missing '.*' --allow-unexpected '.*'`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for word in values:
            if not word.startswith(CALLBACKS):
                setattr(namespace, self.dest, [*getattr(namespace, self.dest), word])
                continue
            _check_non_strict(word)
            if not hasattr(namespace, "allow_missing"):
                raise UsageError(f"--override {word}: this command loads no weights of its own; leave it out")
            namespace.non_strict = True


def _check_non_strict(word: str) -> None:
    """Refuses every place below `CALLBACKS` but that of `NON_STRICT`, and every other value of it."""
    place, _, value = NON_STRICT.partition(":")
    key, _, given = word.partition(":")
    try:
        is_same = key == place and config.parse_literal(given.replace("\\", "")) == {"strict": False}
    except ConfigError:
        is_same = False
    if not is_same:
        raise UsageError(
            f"--override {word}: a trainer has no callbacks; the only override below {CALLBACKS} is {place}:{value}, "
            f"for weights that may lack entries or have others (--allow-missing and --allow-unexpected name them)"
        )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Adds `--device` and `--autocast`."""
    parser.add_argument("--device", help="cuda or cpu (default: cuda if there is a GPU)")
    parser.add_argument(
        "--autocast",
        action="store_true",
        help="run encoder and decoder in bfloat16; quantizer and losses stay in float32",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds `--engine`, `--ray-address` and `--ray-workers`."""
    group = parser.add_argument_group("scale-out")
    group.add_argument(
        "--engine",
        choices=("torchrun", "ray"),
        default="torchrun",
        help="who does the work: this process, or those that torchrun starts (default); or the workers of a Ray "
        "cluster, which are started again when they end. The result is the same",
    )
    group.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="a cluster that runs already, or auto for the one of this machine (default: $RAY_ADDRESS, else a cluster "
        "is started on this machine for the command)",
    )
    group.add_argument(
        "--ray-workers",
        type=positive,
        metavar="N",
        help="worker processes (default: one per GPU of the cluster, or per CPU if it has none)",
    )


def check_engine(args: argparse.Namespace) -> None:
    """Refuses options of `add_engine` that do not fit together.

    Raises:
        UsageError: With the option.
        MissingPackageError: If Ray is needed and not installed.
    """
    if args.engine != "ray":
        for option, value in (("--ray-address", args.ray_address), ("--ray-workers", args.ray_workers)):
            if value is not None:
                raise UsageError(
                    f"{option}: has no effect without --engine ray; add it, or leave {option} out"
                )
        return
    if args.device not in (None, "cpu", "cuda"):
        raise UsageError(
            f"--device {args.device}: expected cpu or cuda with --engine ray, which chooses the GPU"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "--engine ray: expected one process, got several of torchrun; start it without torchrun"
        )
    address = _ray_address(args)
    if address is not None and address != "auto" and not re.fullmatch(r"[^/\s]+:\d{1,5}", address):
        raise UsageError(
            f"--ray-address {address}: expected HOST:PORT of the head node, such as 10.0.0.1:6379, or auto (ray:// is "
            f"the port of another protocol)"
        )
    if not packages.is_installed("ray"):
        raise packages.missing("ray", needed_by="--engine ray")


def _ray_address(args: argparse.Namespace) -> str | None:
    """The address of a cluster that exists; None to start one."""
    address: str | None = args.ray_address or os.environ.get("RAY_ADDRESS") or None
    return None if address == "local" else address


def own_device(args: argparse.Namespace) -> str | None:
    """The device of this process: with `--engine ray` only the workers use that of `--device`."""
    return "cpu" if args.engine == "ray" else args.device


@contextmanager
def ray_workers(args: argparse.Namespace) -> Iterator["Workers | None"]:
    """Inside, the workers of a Ray cluster wait for work; None without `--engine ray`."""
    if args.engine != "ray":
        yield None
        return
    from vq.engine.on_ray import ray_workers as joined

    with joined(
        address=_ray_address(args),
        count=args.ray_workers,
        device=args.device,
        autocast=getattr(args, "autocast", False),
    ) as workers:
        yield workers


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """Adds `--channels-last` and `--compile`."""
    parser.add_argument(
        "--channels-last",
        action="store_true",
        help="store images and features with the channels innermost, which is faster for convolutions on a GPU",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="use torch.compile for the trained networks; the first steps take minutes",
    )


def add_weights(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Adds `--load-model-from`, `--allow-missing` and `--allow-unexpected`."""
    parser.set_defaults(non_strict=False)
    parser.add_argument(
        "--load-model-from",
        nargs="+",
        default=[],
        required=required,
        metavar="F",
        help="weights: checkpoint folders (iter_N) or files; later ones override earlier ones. Missing or unexpected "
        "entries are errors unless the next two options allow them",
    )
    parser.add_argument(
        "--allow-missing",
        default="",
        type=pattern,
        metavar="REGEX",
        help="names of parameters that the files may lack, such as 'quantizer.*'",
    )
    parser.add_argument(
        "--allow-unexpected",
        default="",
        type=pattern,
        metavar="REGEX",
        help="names of entries that are ignored",
    )


def given_weights(args: argparse.Namespace, paths: Sequence[str | Path]) -> "GivenWeights":
    """Weight files to load, with what the command line allows of them."""
    from vq.engine.jobs.given_weights import GivenWeights

    return GivenWeights(
        paths=paths,
        allow_missing=".*" if args.non_strict else args.allow_missing,
        allow_unexpected=".*" if args.non_strict else args.allow_unexpected,
    )


def add_visual(parser: argparse.ArgumentParser) -> None:
    """Adds `--visual`."""
    parser.add_argument(
        "--visual",
        default="",
        type=pattern,
        metavar="REGEX",
        help="also save one PNG per image for each of image, reconstruction, indices that matches",
    )


def add_wandb(parser: argparse.ArgumentParser) -> None:
    """Adds `--wandb` and the names of the W&B run."""
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="also log to Weights & Biases (WANDB_MODE=offline needs no network)",
    )
    for name, (what, default) in WANDB_NAMES.items():
        parser.add_argument(
            f"--wandb-{name}", metavar="NAME", help=f"{what} (default: WANDB_{name.upper()}, or {default})"
        )


WANDB_NAMES = {
    "project": ("the project in W&B", "vq"),
    "entity": ("the user or team in W&B that owns the project", "that of the login"),
    "name": ("the full name of the run in W&B", "NAME, for example fsq/1000_emoji"),
}


def wandb_names(args: argparse.Namespace, name: str) -> dict[str, str] | None:
    """The names with which W&B is used: those of the options, else of the environment; None without `--wandb`.

    Args:
        args: With the options of `add_wandb`.
        name: The name of the W&B run if none is given.

    Raises:
        UsageError: If a name is given without `--wandb`.
    """
    given = {key: value for key in WANDB_NAMES if (value := getattr(args, f"wandb_{key}")) is not None}
    if not args.wandb:
        for key in given:
            raise UsageError(f"--wandb-{key}: has no effect without --wandb; add --wandb, or leave it out")
        return None
    environment = {key: os.environ.get(f"WANDB_{key.upper()}", "") for key in WANDB_NAMES}
    return {"name": name} | {key: value for key, value in environment.items() if value} | given


def add_tokenize(parser: argparse.ArgumentParser) -> None:
    """Adds `--tokenize`."""
    parser.add_argument(
        "--tokenize",
        action="store_true",
        help="also write the indices of the validation set to tokens/ beside metrics.json, as vq tokenize does",
    )


def load_config(
    args: argparse.Namespace, source: str | Path | None = None, *, frozen_from: Sequence[str] = ()
) -> "Config":
    """The config of a command, with its options and overrides; weights outside the run are recorded in it.

    Args:
        args: With `config`, `config_options` and `override`.
        source: A config to use instead of `args.config`.
        frozen_from: Weight files for the pretrained tokenizer inside a tokenizer, if the config gives it none.
    """
    page = load_page(args, source, frozen_from=frozen_from)
    tree = page.to_dict()
    if not config.refers_to_weights(tree) and not config.open_sizes(tree):
        return page
    from vq.engine.assembly.recording import recorded

    return config.replaced(page, recorded(tree))


def load_page(
    args: argparse.Namespace, source: str | Path | None = None, *, frozen_from: Sequence[str] = ()
) -> "Config":
    """The config of a command as `load_config` gives it, before anything outside the page is recorded."""
    loaded = config.load(
        source or args.config,
        options=config.parse_assignments(args.config_options),
        overrides=config.parse_assignments(args.override),
    )
    moved = dict(_moved(word) for word in getattr(args, "weights", []))
    tree = config.with_weights(loaded.to_dict(), moved)
    tree = config.with_frozen_weights(tree, frozen_from, is_strict=not getattr(args, "non_strict", False))
    return config.replaced(loaded, tree)


def _moved(word: str) -> tuple[str, str]:
    key, equals, path = word.partition("=")
    if not key or not equals or not path:
        raise UsageError(f"--weights {word}: expected KEY=PATH, such as tokenizer=work_dirs/NAME")
    return key, path


def run_directory(name: str) -> Path:
    """The folder `work_dirs/NAME` of a run. NAME may begin with `work_dirs/`.

    Raises:
        UserError: If the folder would be outside work_dirs, or the name is not a plain path or belongs to a file.
    """
    plain = name.removeprefix("./").removeprefix(f"{WORK_DIRS}/").rstrip("/")
    parts = plain.split("/")
    if name.endswith((".py", ".json")):
        raise UsageError(f"NAME {name!r}: this is a CONFIG; NAME comes first, then CONFIG")
    if not all(re.fullmatch(r"[\w][\w.\-+=,]*", part) for part in parts) or ".." in parts:
        raise UsageError(
            f"NAME {name!r}: expected a relative name such as vqgan/1024_imagenet, made of letters, digits and "
            f"_ - + . = , in parts separated by /, without '..'; everything is written to {WORK_DIRS}/NAME"
        )
    run = WORK_DIRS.joinpath(*parts)
    for folder in (run, *run.parents):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"NAME {name!r}: {folder} is a file, and a run is a folder; choose another NAME")
    return run


def run_names() -> list[str]:
    """The names of all runs in work_dirs, sorted."""
    files = [file for depth in ("*", "*/*", "*/*/*") for file in WORK_DIRS.glob(f"{depth}/config.json")]
    return sorted(str(f.parent.relative_to(WORK_DIRS)) for f in files if "checkpoints" not in f.parts)


def known_runs(name: str) -> str:
    """The end of an error message: the run whose name is nearest, or a list of some."""
    runs = run_names()
    return suggest(name, runs[:10] if name not in runs else runs)


def check_out(directory: Path | None) -> None:
    """Refuses an `--out` that is a file or is below one, before any work is done.

    Raises:
        UsageError: With the path of the file.
    """
    for folder in () if directory is None else (directory, *directory.parents):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--out {directory}: {folder} is a file, and a folder is needed; choose another")


@contextmanager
def ends_on_signal() -> Iterator[None]:
    """Inside, SIGTERM, SIGINT, SIGHUP and SIGUSR1 end the command at once with 128 + the signal's number.

    For commands that write each file completely or not at all, and continue when they are started again.
    """
    from vq.engine.loop.stopping import StopRequest

    with StopRequest() as stop, stop.at_once():
        yield


def say(*lines: str) -> list[str]:
    """Prints the result of a command to stdout at once; returns its lines."""
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
    sys.stdout.flush()
    return list(lines)


def main(command: Callable[[Sequence[str] | None], Any]) -> None:
    """Runs a command as a program. An error that the user can fix ends it with one message and exit code 2.

    `vq.failures` has the other ways in which a command can end.
    """
    with failures.reported():
        command(None)
