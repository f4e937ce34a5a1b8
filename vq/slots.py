"""What may stand at each place of a config: the kind of part, and the arguments that a command fills in.

These are plain tables, so that a config can be checked without importing mmengine or torch. `vq.registry` has a
registry for each kind.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from vq.errors import ConfigError
from vq.text import shown, suggest


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of part, such as a quantizer.

    Attributes:
        name: As messages say it.
        package: The package that offers every class of this kind.
    """

    name: str
    package: str


QUANTIZER = Kind("quantizer", "vq.quantizers")
CODEBOOK = Kind("codebook", "vq.quantizers")
QUANTIZER_PART = Kind("quantizer part", "vq.quantizers")
ENCODER = Kind("encoder", "vq.networks")
DECODER = Kind("decoder", "vq.networks")
LAYER = Kind("layer", "vq.layers")
FEATURE_NETWORK = Kind("feature network", "vq.networks")
TEACHER = Kind("teacher", "vq.networks")
DISCRIMINATOR = Kind("discriminator", "vq.networks")
TOKENIZER = Kind("tokenizer", "vq.tokenizers")
GENERATOR = Kind("generator", "vq.generators")
SAMPLING_PART = Kind("sampling part", "vq.generators")
PROBE = Kind("probe", "vq.probes")
PROBE_FEATURES = Kind("probe features", "vq.probes")
LOSS = Kind("loss", "vq.losses")
ADVERSARIAL_PART = Kind("adversarial part", "vq.losses")
METRIC = Kind("metric", "vq.metrics")
DATASET = Kind("dataset", "vq.data")
TRANSFORM = Kind("transform", "vq.data")
LOADER = Kind("loader", "vq.data")
STEP = Kind("train step", "vq.engine")
SCHEDULE = Kind("schedule", "vq.engine")
CALLBACK = Kind("callback", "vq.engine")
ENGINE = Kind("engine part", "vq.engine")
OPTIMIZER = Kind("optimizer", "vq.optimizers")

SLOTS: dict[str, Kind] = {
    "quantizer": QUANTIZER,
    "codebook": CODEBOOK,
    "init": QUANTIZER_PART,
    "revival": QUANTIZER_PART,
    "estimator": QUANTIZER_PART,
    "distance": QUANTIZER_PART,
    "regularisers": QUANTIZER_PART,
    "annealing": QUANTIZER_PART,
    "weights": QUANTIZER_PART,  # of losses: those that are functions of the step, as annealing is
    "encoder": ENCODER,
    "decoder": DECODER,
    "bottom_encoder": ENCODER,
    "top_encoder": ENCODER,
    "top_quantizer": QUANTIZER,
    "bottom_quantizer": QUANTIZER,
    "top_decoder": DECODER,
    "patches": LAYER,
    "transformer": LAYER,
    "positions": LAYER,
    "attention": LAYER,
    "augmentation": LAYER,
    "network": FEATURE_NETWORK,
    "teacher": TEACHER,
    "tokenizer": TOKENIZER,
    "generator": GENERATOR,
    "guidance": SAMPLING_PART,
    "probe": PROBE,
    "features": PROBE_FEATURES,
    "losses": LOSS,
    "discriminator": DISCRIMINATOR,
    "objective": ADVERSARIAL_PART,
    "penalties": ADVERSARIAL_PART,
    "metrics": METRIC,
    "dataset": DATASET,
    "transforms": TRANSFORM,
    "train_data": LOADER,
    "val_data": LOADER,
    "train_step": STEP,
    "step": STEP,
    "adversary": ENGINE,
    "schedule": SCHEDULE,
    "optimizer": OPTIMIZER,
    "strategy": ENGINE,
    "trainer": ENGINE,
    "evaluator": ENGINE,
    "checkpointer": ENGINE,
    "callbacks": CALLBACK,
    "comparison": ENGINE,
}
"""The kind of part that a config key holds. Below any other key, a class is given by its full name."""

COLLECTIONS = ("losses", "penalties", "annealing", "weights")
"""The keys whose entries are named parts: `losses=dict(l1=dict(type=...), ...)`."""

MAX_DEPTH = 64
"""How many keys and indices the place of a node may have; the project's own pages have at most 9."""

RUNTIME: dict[str, dict[str, str]] = {
    "train_step": {
        "tokenizer": "the section tokenizer",
        "generator": "the section generator",
        "probe": "the section probe",
        "autocast": "--autocast",
        "max_steps": "trainer.max_steps",
    },
    "features": {"tokenizer": "the section tokenizer"},
    "adversary": {"max_steps": "trainer.max_steps"},
    "optimizer": {"params": "the parameters of what the step trains"},
    "schedule": {"total_steps": "trainer.max_steps"},
    "trainer": {
        "runner": "the sections train_step and train_data, and --seed",
        "validation": "the sections evaluator and val_data",
        "checkpointer": "the section checkpointer",
    },
    "callbacks": {"directory": "NAME"},
    "evaluator": {"tokenizer": "the section tokenizer"},
    "checkpointer": {"directory": "NAME", "config": "CONFIG"},
}
"""What a command fills in, by the key of the node, and where it comes from; a config may not have these arguments.

A nested part that needs one of these arguments before it is known is built as a function of it: a step calls the
function of its optimizer with the parameters, and that of its schedule with the number of steps.
"""


class CodeName(str):
    """The full name of a class, given by a page that the user typed: code, which may name any class.

    The name itself carries this, through copies and merges of a config. What is written to a file is a plain string.
    """

    __slots__ = ()


def kind_of(path: str) -> Kind | None:
    """The kind of part at the place `path`, which its last key that is named in `SLOTS` decides."""
    keys = [key.partition("[")[0] for key in path.split(".")]
    # `train_step.losses.lpips`: the entries of a named collection belong to the collection, whatever their name is.
    return SLOTS.get(keys[-2] if len(keys) > 1 and keys[-2] in COLLECTIONS else keys[-1])


def check_depth(path: str) -> None:
    """Refuses a place that is nested more than `MAX_DEPTH` deep, which only damaged or hostile data are.

    Raises:
        ConfigError: With the beginning of the place.
    """
    if path.count(".") + path.count("[") > MAX_DEPTH:
        raise ConfigError(f"{path[:80]}...: nested more than {MAX_DEPTH} deep, or inside itself")


def filled_in(path: str) -> dict[str, str]:
    """The arguments that a command fills in at the place `path`, and where they come from."""
    key = path.rpartition(".")[2].partition("[")[0]
    return RUNTIME.get("train_step" if key == "step" else key, {})


def runtime_hint(path: str, key: str) -> str:
    """What to say of an argument that a command fills in."""
    source = filled_in(path).get(key, "the command")
    return f"expected no such key, for the value comes from {source}; leave {key!r} out"


def argument_problems(
    class_name: str, given: Iterable[str], names: list[str], required: Iterable[str]
) -> str:
    """What is wrong with the names of some arguments, one line each; empty if nothing is."""
    problems = [
        f"unknown argument {shown(name)}{suggest(name, names)}" for name in given if name not in names
    ]
    problems += [f"missing argument {name!r}" for name in required if name not in set(given)]
    if not problems:
        return ""
    lines = "".join(f"\n  {problem}" for problem in problems)
    return f"cannot build {class_name}{lines}\n  {class_name} takes: {', '.join(names)}"
