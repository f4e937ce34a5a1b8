"""Runs a program on every GPU of this machine: `auto_torchrun -m vq.train NAME CONFIG`."""

import os
import sys
from collections.abc import Sequence

from vq import failures
from vq.errors import UserError

HELP = """\
usage: auto_torchrun -m MODULE ...
       auto_torchrun SCRIPT.py ...

Runs a program on every GPU of this machine, with one process per GPU, or with one process if there is none. It is
torchrun --standalone --nproc-per-node=N, and takes the options of torchrun before -m or SCRIPT.py. PROCESSES=2 in the
environment, or --nproc-per-node=2, sets another number of processes, such as for a CPU.

It ends with the exit code of the process that failed first, or with 128 + the number of the signal that stopped it;
signals reach every process.

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
    args = run.parse_args([*options, *words])
    if args.nnodes not in ("1", "1:1") or args.node_rank:
        raise UserError(
            "auto_torchrun: starts processes on this machine alone; use torchrun for several machines"
        )
    sys.stderr.write(
        f"auto_torchrun: {args.nproc_per_node} process{'' if args.nproc_per_node == '1' else 'es'}\n"
    )
    sys.stderr.flush()
    try:
        run.run(args)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code >= 0 else 128 - code)
    except SignalException as error:
        sys.exit(128 + error.sigval)


def script() -> None:
    """The entry point of the console script."""
    with failures.reported():
        main()


if __name__ == "__main__":
    script()
