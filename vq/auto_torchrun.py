"""Runs a program on every GPU of this machine: `auto_torchrun -m vq.train NAME CONFIG`."""

import argparse
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from vq import failures, signatures
from vq.errors import UserError

HELP = """\
usage: auto_torchrun -m MODULE ...
       auto_torchrun SCRIPT.py ...

Runs a program on every GPU of this machine, with one process per GPU, or with one process if there is none. It is
torchrun --standalone --nproc-per-node=N, and takes the options of torchrun before -m or SCRIPT.py. PROCESSES=2 in the
environment, or --nproc-per-node=2, sets another number of processes, such as for a CPU.

When a process fails, the others are stopped. It ends with the exit code of the process that failed first, or with
128 + the number of the signal that stopped it; signals reach every process. LOGLEVEL=INFO in the environment shows
the messages of torchrun itself.

example:
  auto_torchrun -m vq.train emoji fsq/1000_emoji
  PROCESSES=2 auto_torchrun -m vq.val emoji --device cpu
"""
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


def num_processes() -> int:
    """The number of processes to start: that of an environment variable, else that of the visible GPUs, at least one.

    The variables are `PROCESSES` and `nproc_per_node`, the name that other projects' `auto_torchrun` uses.

    Raises:
        UserError: If the variable is not a positive number.
    """
    for name in ("PROCESSES", "nproc_per_node"):
        if given := os.environ.get(name):
            if not given.isdecimal() or int(given) < 1:
                raise UserError(
                    f"the environment variable {name}: expected a number of at least 1, got {given!r}"
                )
            return int(given)
    import torch

    return max(1, torch.cuda.device_count())


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the program, and ends with its exit code.

    Raises:
        UserError: If the options name other machines, for which torchrun itself is to be used.
        SystemExit: If a process failed, or a signal ended them.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        (sys.stdout if words else sys.stderr).write(HELP)
        sys.exit(0 if words else failures.USER_ERROR)
    number = num_processes()

    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--standalone", f"--nproc-per-node={number}", f"--signals-to-handle={SIGNALS}"]
    args = _parsed(run.get_args_parser(), [*options, *words])
    sys.stderr.write(
        f"auto_torchrun: {args.nproc_per_node} process{'' if args.nproc_per_node == '1' else 'es'}\n"
    )
    sys.stderr.flush()
    if "LOGLEVEL" not in os.environ:
        # A process that fails has said why; torch would add a report of its own.
        logging.disable(logging.ERROR)
    try:
        run.run(args)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        sys.exit(_exit_code(rank, failure.exitcode, args.nproc_per_node))
    except SignalException as error:
        sys.exit(128 + error.sigval)
    finally:
        logging.disable(logging.NOTSET)


def _parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The options of torchrun and the program, if it exists."""

    def refuse(message: str) -> None:
        raise UserError(f"auto_torchrun: {message}; `auto_torchrun --help` describes it")

    parser.error = refuse  # type: ignore[assignment, method-assign]  # torch's parser prints 40 lines of usage
    args = parser.parse_args(words)
    if args.nnodes not in ("1", "1:1") or args.node_rank:
        raise UserError(
            "auto_torchrun: starts processes on this machine alone; use torchrun for several machines"
        )
    if args.module and not _has_module(args.training_script):
        raise UserError(f"auto_torchrun: there is no module {args.training_script!r}")
    if not args.module and not args.no_python and not Path(args.training_script).is_file():
        raise UserError(f"auto_torchrun: there is no file {args.training_script!r}; a module follows -m")
    return args


def _has_module(name: str) -> bool:
    """Whether `python -m name`, which looks in the working folder first, finds a module; nothing is imported."""
    before = sys.path[:]
    sys.path.insert(0, os.getcwd())
    try:
        spec = importlib.util.find_spec(name.partition(".")[0])
        return spec is not None and (spec.origin is None or signatures.has_module(name))
    except (ImportError, ValueError):
        return False
    finally:
        sys.path[:] = before


def _exit_code(rank: int, code: int, number: str) -> int:
    """The exit code for that of the process that failed first; says how it ended if it could not do so itself."""
    others = "" if number == "1" else "; the others were stopped"
    if code < 0:
        sys.stderr.write(f"auto_torchrun: process {rank} was ended by {signal.Signals(-code).name}{others}\n")
        return 128 - code
    if code != failures.USER_ERROR:
        sys.stderr.write(f"auto_torchrun: process {rank} ended with exit code {code}{others}\n")
    return code


def script() -> None:
    """The entry point of the console script."""
    with failures.reported():
        main()


if __name__ == "__main__":
    script()
