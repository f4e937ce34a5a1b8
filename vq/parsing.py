"""Parsers of command lines: their help, their errors, and the kinds of values that they check."""

import argparse
import re
import textwrap
from collections.abc import Iterable
from typing import Any, NoReturn

from vq.errors import UserError
from vq.text import suggest

MAX_LISTED = 40
"""The largest number of choices that an error message lists."""


class UsageError(UserError, ValueError):
    """A command that cannot start; the message says what to do instead."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument like every other error that a user can fix: once, from one of several processes."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` lists the arguments")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Names the nearest choices where there are too many to list."""
        choices = [str(choice) for choice in action.choices or ()]
        if len(choices) > MAX_LISTED and value not in choices:
            near = suggest(str(value), choices).partition("; valid here")[0].rstrip("?")
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{near}")
        super()._check_value(action, value)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows in the usage only what must be given; the options follow below it."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        positionals = [action for action in actions if not action.option_strings]
        required = [_as_positional(action) for action in actions if action.option_strings and action.required]
        options = argparse.Action([], "options", nargs="?")
        super().add_usage(usage, [*positionals, *required, options], [], prefix)


def _as_positional(option: argparse.Action) -> argparse.Action:
    """A stand-in for an option in the usage, where argparse would put the option before NAME."""
    values = option.metavar if isinstance(option.metavar, str) else "|".join(option.choices or ())
    return argparse.Action([], option.dest, metavar=f"{option.option_strings[0]} {values}")


def parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose help describes the command and ends with lines to copy.

    Args:
        command: The name of the sub-command of `vq`.
        description: What it does. A text of one line is wrapped, one of several lines stays as it is.
        example: One or more command lines.
    """
    return _Parser(prog=f"vq {command}", **_help(description, example))


def tool_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of a program in tools/, whose docstring is its description."""
    return _Parser(description=description, formatter_class=_HelpFormatter)


def subparser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """A parser below another one, as `export` in `vq tokens export`; `summary` is its line in the help of the other."""
    return commands.add_parser(name, help=summary, **_help(description, example))


def _help(description: str, example: str) -> dict[str, Any]:
    return {
        "description": description if "\n" in description else textwrap.fill(description, 100),
        "epilog": f"example:\n  {example}",
        "formatter_class": _HelpFormatter,
    }


def positive(text: str) -> int:
    """Parses an argument that counts something."""
    number = int(text)  # argparse reports a ValueError
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def pattern(text: str) -> str:
    """Parses an argument that is a regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None
    return text
