"""Calls a function in a process of its own, which ends when this one does."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from vq.errors import UserError


class OwnProcess:
    """A new process that calls a function; this process may do something else meanwhile.

    Args:
        function: Picklable, without arguments.
        environment: Variables of the new process that differ from those of this one.

    Attributes:
        receiver: Becomes readable (`multiprocessing.connection.wait`) when the result is there, or the process has
            ended.
    """

    def __init__(self, function: Callable[[], Any], environment: Mapping[str, str] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.receiver, sender = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(target=_call, args=(sender, function))
        with _environment(environment or {}):
            self._process.start()
        sender.close()

    def result(self) -> Any:
        """Waits for the result of the function.

        Raises:
            UserError: With the message of a `UserError` that the function raised.
            OSError: As the function raised it.
            RuntimeError: If the process ended otherwise; it has written its traceback to its standard error.
        """
        try:
            result, error = self.receiver.recv()
            self._process.join()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the process ended with code {self._process.exitcode}") from None
        finally:  # a signal to this process ends the other one too
            self.end()
        if error is not None:
            raise error
        return result

    def stop(self) -> None:
        """Asks the process to end (SIGTERM)."""
        if self._process.is_alive():
            self._process.terminate()

    def end(self, patience: float = 3.0) -> None:
        """Ends the process if it still runs, with force if it does not obey within `patience` seconds."""
        self.stop()
        self._process.join(timeout=patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, these environment variables have these values."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _call(sender: Connection, function: Callable[[], Any]) -> None:
    """Runs in the new process: sends (result, None) or (None, error)."""
    _end_with_parent()
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
