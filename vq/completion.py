"""Completes the words of a `vq` command line in a shell: `eval "$(vq completion bash)"`.

The shell passes the words before the cursor to `vq completion --for WORD ...`, which prints the candidates for the
last one. They come from the parsers of the commands, so that no list has to be kept up to date.
"""

import argparse
import importlib
from collections.abc import Iterable, Sequence

from vq import cli, zoo
from vq.__main__ import COMMANDS

SCRIPTS = {
    "bash": """\
_vq() {
    local IFS=$'\\n' i last=-1 start
    local -a words
    for ((i = 1; i <= COMP_CWORD; i++)); do  # bash splits a word at its colons
        if ((last >= 0)) && [[ "${COMP_WORDS[i]}" == :* || "${COMP_WORDS[i-1]}" == :* ]]; then
            words[last]+="${COMP_WORDS[i]}"
        else
            words[++last]="${COMP_WORDS[i]}"
        fi
    done
    COMPREPLY=($("$1" completion --for "${words[@]}" 2>/dev/null))
    start="${words[last]%"${words[last]##*:}"}"
    if [[ "$COMP_WORDBREAKS" == *:* ]]; then COMPREPLY=("${COMPREPLY[@]#"$start"}"); fi
}
complete -o bashdefault -o default -F _vq vq
""",
    "zsh": """\
#compdef vq
_vq() {
    local -a candidates
    candidates=("${(@f)$("${words[1]}" completion --for "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${candidates[1]}" ]]; then compadd -a candidates; else _files; fi
}
compdef _vq vq
""",
    "fish": """\
complete -c vq -a '(set -l words (commandline -opc) (commandline -ct); vq completion --for $words[2..] 2>/dev/null)'
""",
}
"""What each shell runs once to know how to complete `vq`."""

FOR = "--for"

TAKE_PUBLISHED = ("export", "generate", "inference", "test")
"""The commands that take the name of a published model in place of a run."""


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "completion",
        "Prints a script that makes a shell complete the commands of vq, their options, the names of runs, and the "
        "config pages that come with vq. bash and zsh evaluate it in ~/.bashrc or ~/.zshrc (zsh after compinit); "
        "fish reads it from a file.",
        'eval "$(vq completion bash)"\n'
        '  eval "$(vq completion zsh)"\n'
        "  vq completion fish > ~/.config/fish/completions/vq.fish",
    )
    parser.add_argument("shell", choices=SCRIPTS, help="the shell")
    return parser


def main(argv: Sequence[str] | None = None) -> list[str]:
    """Runs the command; returns the lines that it printed."""
    if argv and argv[0] == FOR:
        return cli.say(*candidates(argv[1:]))
    return cli.say(*SCRIPTS[arguments().parse_args(argv).shell].splitlines())


def candidates(words: Sequence[str]) -> list[str]:
    """The completions of the last word.

    Args:
        words: The words after `vq`, up to the cursor. The last one may be empty.
    """
    *before, current = words or [""]
    if not before:
        return _beginning(current, [*COMMANDS, "--help", "--version"])
    if before[0] not in COMMANDS:
        return []
    parser = importlib.import_module(COMMANDS[before[0]].module).arguments()
    found = _beginning(current, _values(parser, before[1:], current))
    if current and len(before) == 1 and before[0] in TAKE_PUBLISHED:
        found += _beginning(current, (f"{zoo.PREFIX}{name}" for name in zoo.names()))
    return found


def _beginning(current: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(current)]


def _values(parser: argparse.ArgumentParser, before: Sequence[str], current: str) -> Iterable[str]:
    """All words that may stand after `before`."""
    positionals = [action for action in parser._actions if not action.option_strings]
    options = {word: action for action in parser._actions for word in action.option_strings}
    option: argparse.Action | None = None
    given: list[str] = []
    for i, word in enumerate(before):
        if word in options:
            option = options[word] if options[word].nargs != 0 else None
        elif option is not None:
            option = option if option.nargs in ("+", "*") else None
        elif positionals and isinstance(positionals[0], argparse._SubParsersAction):
            inner = positionals[0].choices.get(word)
            return () if inner is None else _values(inner, before[i + 1 :], current)
        else:
            given.append(word)
            positionals = positionals if positionals and positionals[0].nargs == "+" else positionals[1:]
    if current.startswith("-"):
        return options
    action = option or next(iter(positionals), None)
    return options if action is None else _known_values(action, given)


def _known_values(action: argparse.Action, given: Sequence[str]) -> Iterable[str]:
    """The values of an argument, as far as they are known: its choices, or names of its kind."""
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    if action.metavar in ("NAME", "RUN", "RUN|CONFIG"):
        return cli.run_names()
    if action.metavar in ("CONFIG", "DATASET", "NAME|CONFIG"):
        from vq.config import packaged

        short = [name.removeprefix("fid/") for name in packaged.names() if name.startswith("fid/")]
        first: dict[str, list[str]] = {"CONFIG": [], "DATASET": short, "NAME|CONFIG": cli.run_names()}
        return [*first[action.metavar], *packaged.names()]
    if action.metavar == "iter_N" and given:
        return sorted(path.name for path in (cli.WORK_DIRS / given[0] / "checkpoints").glob("iter_*"))
    return ()


if __name__ == "__main__":
    cli.main(main)
