"""Calls a function in a process of its own, which ends when this one does."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from vq.errors import UserError


def call_in_own_process(function: Callable[[], Any]) -> Any:
    """Calls a picklable function in a new process, with as many threads as here, and returns its result.

    Raises:
        UserError: With the message of a `UserError` that the function raised.
        OSError: As the function raised it.
        RuntimeError: If the process ended otherwise; its traceback is on the console.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, torch.get_num_threads()))
    process.start()
    sender.close()
    try:
        result, error = receiver.recv()
        process.join()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process ended with code {process.exitcode}") from None
    finally:  # a signal to this process ends the other one too
        _end(process)
    if error is not None:
        raise error
    return result


def _call(sender: Connection, function: Callable[[], Any], threads: int) -> None:
    """Runs in the new process: sends (result, None) or (None, error)."""
    _end_with_parent()
    torch.set_num_threads(threads)
    try:
        sender.send((function(), None))
    except UserError as error:
        sender.send((None, UserError(str(error))))  # its own class may not be picklable
    except OSError as error:
        sender.send((None, error))


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, however the parent ended; only the parent answers Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end(process: BaseProcess) -> None:
    """Ends a process that still runs, with force if it does not obey."""
    if process.is_alive():
        process.terminate()
        process.join(timeout=3)
    if process.is_alive():
        process.kill()
        process.join()
