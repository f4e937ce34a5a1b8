"""The config that a command uses for a run that exists: the run's own, or one that agrees with it.

Nothing here imports torch before the config is known to be well-formed.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vq import cli, config
from vq.errors import ConfigError

DATA = ("train_data", "val_data")
NETWORKS = ("tokenizer", *config.OVER_TOKENIZER)
NOT_COMPARED = ("num_workers", "strict")
"""Keys that change only how fast a command runs, or which weights it accepts."""

logger = logging.getLogger("vq.run_config")
Tree = dict[str, Any]


def config_for(
    args: argparse.Namespace,
    *,
    run: Path | None,
    weights: Sequence[str] = (),
    frozen_from: Sequence[str] = (),
    compared: Sequence[str] = (*DATA, *NETWORKS),
) -> Tree:
    """The config of a command, as plain data.

    Without CONFIG it is the `config.json` of the run, or the one beside the weights. A CONFIG must agree with those of
    the run and of the weights in the sections `compared`, except where `--override` and `--config-options` on this
    command line set a value, and unless `--as-given` is there.

    Args:
        args: With `config`, `config_options`, `override` and `as_given`.
        run: The folder of a run; None if the command is about weights alone.
        weights: What `--load-model-from` names, if the command is about these weights.
        frozen_from: What it names if they may be those of a frozen tokenizer in the config, which has none.
        compared: The sections that matter to the command.

    Raises:
        UsageError: If there is neither a CONFIG nor a run, or the configs disagree; the message names the keys.
        ConfigError: If the config cannot be used.
    """
    source = args.config or own_config_file(run, weights)
    if source is None:
        raise cli.UsageError(_nothing_to_use(args, run, weights))
    frozen_from = frozen_from or recorded_frozen_weights(run, weights)
    tree: Tree = cli.load_config(args, source, frozen_from=frozen_from).to_dict()
    asked = _asked_for(args, source)
    for place, reference in _references(run, weights):
        different = [
            change
            for change in differences(tree, reference, compared)
            if not any(_is_within(change[0], key) for key in asked)
        ]
        if different:
            _refuse_or_say(args, source, place, different)
    return tree


def left_for_the_model(tree: Mapping[str, Any], files: Sequence[str]) -> Sequence[str]:
    """The weight files that are to be loaded into the model that a config describes; logs where they belong.

    Those of its frozen tokenizer are not: that part loads them itself when it is built.

    Args:
        tree: A config that `cli.load_config` has loaded.
        files: What `--load-model-from` names: the weights of the frozen tokenizer inside the section `tokenizer`, if
            it is these that the config names there, or else of the model.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    from vq.files import sha256_of
    from vq.tokenizers.checkpoint import find_weights

    if not files:
        return files
    place = ", ".join(files)
    found = [sha256_of(find_weights(file)) for file in files]
    for node in config.nodes(tree.get("tokenizer")) if config.trained_section(tree) == "tokenizer" else ():
        if node["type"] in config.PRETRAINED_TOKENIZER and node.get("sha256") == found:
            logger.info("--load-model-from %s: the weights of the frozen tokenizer in the config", place)
            return ()
    logger.info("--load-model-from %s: loaded into the model", place)
    return files


def recorded_frozen_weights(run: Path | None, weights: Sequence[str]) -> Sequence[str]:
    """The weights of the frozen tokenizer inside the tokenizer that a run or some weights hold, if there is one."""
    for _, reference in _references(run, weights):
        for node in config.nodes(reference.get("tokenizer")):
            if node["type"] in config.PRETRAINED_TOKENIZER and isinstance(node.get("weights"), list):
                return [str(file) for file in node["weights"]]
    return ()


def config_to_continue(name: str, run: Path, checkpoint: str | None) -> Path:
    """The config of a training that continues without CONFIG: the run's own, else that of the checkpoint.

    Args:
        name: NAME as it was given.
        run: Its folder.
        checkpoint: What `--load-from` names, if anything.

    Raises:
        UsageError: If there is neither.
    """
    source = own_config_file(run, [checkpoint] if checkpoint else [])
    if source is None:
        raise cli.UsageError(
            f"{run}: expected a CONFIG, since there is no run of this name to continue (no config.json in it); "
            f"begin it with vq train {name} CONFIG{cli.known_runs(name)}"
        )
    return source


def own_config_file(run: Path | None, weights: Sequence[str] = ()) -> Path | None:
    """The `config.json` of a run or of its newest checkpoint, else that beside the last weights; None if none."""
    folders = [] if run is None else [run, *_checkpoints(run)]
    for name in reversed(weights):
        path = Path(name)
        folders += [path, *_checkpoints(path)] if path.is_dir() else [path.parent]
    return next((folder / "config.json" for folder in folders if (folder / "config.json").is_file()), None)


def differences(
    given: Mapping[str, Any], reference: Mapping[str, Any], sections: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Where two configs disagree in some sections: place as in `--override`, given value, value of the reference.

    A section that the reference lacks is not compared: the weights of another project describe only a tokenizer.
    """
    return [
        change
        for name in sections
        if name in reference
        for change in _differences(given.get(name, _ABSENT), reference[name], f".{name}")
    ]


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def _differences(given: Any, reference: Any, place: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(given, Mapping) and isinstance(reference, Mapping):
        if given.get("type") == reference.get("type"):
            for key in [*given, *(k for k in reference if k not in given)]:
                # The checksum of other weights is recorded when a training begins; a page need not give it.
                is_recorded = "sha256" in key and key not in given
                if key in ("weights", "path") and given.get("sha256") == reference.get("sha256") is not None:
                    continue  # the same weights, in another place
                if key not in NOT_COMPARED and not is_recorded:
                    ours, theirs = given.get(key, _ABSENT), reference.get(key, _ABSENT)
                    yield from _differences(ours, theirs, f"{place}.{key}")
            return
    elif isinstance(given, list) and isinstance(reference, list) and len(given) == len(reference):
        for i, (ours, theirs) in enumerate(zip(given, reference, strict=True)):
            yield from _differences(ours, theirs, f"{place}[{i}]")
        return
    if given != reference or isinstance(given, bool) != isinstance(reference, bool):
        yield place, _short(given), _short(reference)


def _short(value: Any) -> str:
    """A value as a message shows it, cut after 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_within(place: str, key: str) -> bool:
    return place == key or place.startswith((f"{key}.", f"{key}["))


def _asked_for(args: argparse.Namespace, source: str | Path) -> list[str]:
    """The places that this command line sets, by its overrides and by its options."""
    keys = list(config.parse_assignments(args.override))
    if not args.config_options:
        return keys
    chosen = config.load(source, options=config.parse_assignments(args.config_options)).to_dict()
    try:
        plain = config.load(source).to_dict()
    except ConfigError:  # the page needs its options
        return keys
    return keys + [place for place, _, _ in differences(chosen, plain, list(plain))]


def _references(run: Path | None, weights: Sequence[str]) -> Iterator[tuple[Path, Tree]]:
    """The configs that the run and the weights were trained with, each with its file."""
    if run is not None and (own := own_config_file(run)) is not None:
        tree = config.parse_json(
            config.read_text(own), str(own)
        )  # compared, not built: any class may be named
        yield own, tree if isinstance(tree, dict) else {}
    if weights:
        from vq.tokenizers.checkpoint import find_weights, read_config

        for file in map(find_weights, reversed(weights)):
            if (found := read_config(file)) is not None:
                yield file, found
                return


def _refuse_or_say(
    args: argparse.Namespace, source: str | Path, place: Path, different: Sequence[tuple[str, str, str]]
) -> None:
    keys = "; ".join(f"{key}: {here} instead of {there}" for key, here, there in different[:8])
    more = f"; and {len(different) - 8} more" if len(different) > 8 else ""
    if args.as_given:
        logger.warning("%s is used as given, although it differs from %s: %s%s", source, place, keys, more)
        return
    cure = (
        "leave CONFIG out to use the run's own, set what you want to change with --override, or add --as-given to "
        "use CONFIG as it is"
        if args.config
        else "add --as-given to combine them"
    )
    raise cli.UsageError(f"{source}: is not the config that {place} was trained with: {keys}{more}; {cure}")


def _nothing_to_use(args: argparse.Namespace, run: Path | None, weights: Sequence[str]) -> str:
    if weights:
        from vq.tokenizers.checkpoint import find_weights

        find_weights(weights[-1])  # raises if there are none
        return f"{weights[-1]}: there is no config.json beside these weights; give the page they belong to as CONFIG"
    return (
        f"{run}: there is no run of this name (no config.json in it); train it first with vq train "
        f"{args.name} CONFIG, or give a CONFIG{cli.known_runs(str(args.name))}"
    )


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first."""
    found = [p for p in (folder / "checkpoints").glob("iter_*") if p.name.removeprefix("iter_").isdecimal()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("iter_")), reverse=True)
