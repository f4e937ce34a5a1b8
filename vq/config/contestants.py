"""Contestants of an experiment: each is the page with a few changes, and is trained as a page of its own.

    contestants = dict(
        fsq=dict(),                                                                  # the page as it is
        one_level=dict(tokenizer=dict(quantizer=dict(type=FiniteScalarQuantizer, levels=(1000,)))),
        long_warmup={".train_step.schedule.warmup_steps": 200},
        bf16=dict(arguments=["--autocast"]),
    )

A key that is a section changes it by the rules of a page with a base (`vq.config.bases`): a dict without `type`
changes the keys that it names, everything else replaces. A key that begins with a dot is an override, and is assigned
after that. `arguments` are options of `vq train`.
"""

from collections.abc import Mapping
from typing import Any

from vq.config.bases import merged
from vq.config.checking import SECTIONS, Tree, check, plain
from vq.config.overrides import assign
from vq.errors import ConfigError
from vq.text import shown, suggest

ARGUMENTS = "arguments"
ALLOWED_ARGUMENTS = ("--autocast", "--channels-last", "--compile", "--deterministic")
"""The options of `vq train` that a contestant may have; all others decide where and how a run continues."""
OF_EXPERIMENT = ("contestants", "comparison")
"""The sections that describe an experiment; a contestant has none of them."""


def contestant_tree(tree: Mapping[str, Any], name: str) -> Tree:
    """The config of one contestant: the page with the changes of the contestant.

    Raises:
        ConfigError: If the changes are not such as the page can have. The place of the contestant comes first.
    """
    place = f"contestants.{name}"
    changes = tree["contestants"][name]
    if not isinstance(changes, Mapping) or "type" in changes:
        raise ConfigError(
            f"{place}: expected changes of the page, such as dict(tokenizer=dict(quantizer=dict(type=...))), got "
            f"{shown(changes)}"
        )
    sections = [key for key in SECTIONS if key not in OF_EXPERIMENT]
    for key in changes:
        if not key.startswith(".") and key not in (*sections, ARGUMENTS):
            raise ConfigError(f"{place}: unknown section {shown(key)}{suggest(key, sections)}")
    base = {key: value for key, value in tree.items() if key not in OF_EXPERIMENT}
    try:
        own = plain(merged(base, {key: changes[key] for key in sections if key in changes}), "")
        for key, value in changes.items():
            if key.startswith("."):
                assign(own, key, value)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    return {key: own[key] for key in SECTIONS if key in own}


def contestant_arguments(tree: Mapping[str, Any], name: str) -> list[str]:
    """The options of `vq train` for one contestant.

    Raises:
        ConfigError: If one of them is not among `ALLOWED_ARGUMENTS`.
    """
    given = tree["contestants"][name].get(ARGUMENTS, [])
    for word in given if isinstance(given, list) else [given]:
        if not isinstance(given, list) or word not in ALLOWED_ARGUMENTS:
            raise ConfigError(
                f"contestants.{name}.{ARGUMENTS}: expected a list of some of {', '.join(ALLOWED_ARGUMENTS)}, got "
                f"{shown(given)}"
            )
    return list(given)


def check_contestants(tree: Mapping[str, Any]) -> None:
    """Checks the config of every contestant, as `check` does with a page.

    Raises:
        ConfigError: With the place in the section `contestants`.
    """
    for name in tree.get("contestants", {}):
        own = contestant_tree(tree, name)
        contestant_arguments(tree, name)
        try:
            check(own)
        except ConfigError as error:
            raise ConfigError(f"contestants.{name}.{error}") from None
