"""Runs the tests marked `gpu`, one row for each: passed, failed or skipped, its time, and the reason.

A test that does not end within its limit is interrupted. One that cannot be interrupted is `not finished`, and the next
call goes on with the tests after it. Without the plugins of jaxtyping and beartype nothing checks shapes in the tests.
"""

import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu.installation import FOR_TESTS, is_installed
from benchmarks.gpu.timing import Rows

ROOT = Path(__file__).parents[2]
PYTEST, _, BEARTYPE, _ = FOR_TESTS
LIMIT = 120
"""Seconds that a test may take."""
CRASHES = 3
"""How often a file is started again after a test that ended its process."""


class TestTooLongError(Exception):
    """A test that took longer than `LIMIT`."""


class Recorder:
    """A plugin of pytest that leaves out the tests whose rows are there, and keeps the outcome of each other one."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leaves out tests that ran in an earlier call."""
        items[:] = [item for item in items if item.nodeid not in self.rows.found]

    def pytest_collectreport(self, report: Any) -> None:
        """Keeps a file that cannot be imported as a row."""
        if report.failed:
            self._keep(report.nodeid, "failed", 0.0, _reason(report))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Keeps a row before the test begins, in case it ends the process."""
        self._keep(nodeid, "not finished", 0.0, "")
        self.started = time.perf_counter()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keeps the outcome of a test; a failure of its setup or its end is one of the test."""
        if report.when == "call" or report.outcome != "passed":
            reason = "" if report.outcome == "passed" else _reason(report)
            self._keep(report.nodeid, report.outcome, time.perf_counter() - self.started, reason)

    def _keep(self, name: str, outcome: str, seconds: float, reason: str) -> None:
        is_quiet = outcome == "not finished"
        self.rows.keep(
            name, {"outcome": outcome, "seconds": round(seconds, 3), "reason": reason}, is_quiet=is_quiet
        )


def _reason(report: Any) -> str:
    """Why a test was skipped or failed, in one line."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(report.longrepr if crash is None else crash.message).strip().splitlines()
    return lines[0 if crash else -1][:300] if lines else ""


@contextmanager
def limited() -> Generator[None, None, None]:
    """Interrupts what runs inside after `LIMIT` seconds."""

    def interrupt(number: int, frame: object) -> None:
        raise TestTooLongError(f"the test took more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def marked_files() -> list[str]:
    """The test files that have tests marked `gpu`; others may need packages that a GPU machine lacks."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [f for f in files if f.parent.name == "gpu" or "@pytest.mark.gpu" in f.read_text()]
    return [str(file.relative_to(ROOT)) for file in marked]


def run_file(file: str) -> None:
    """Runs the tests of one file that have no row yet, and ends the process with pytest's exit code."""
    import pytest

    class Limit:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(self) -> Generator[None, Any, Any]:
            with limited():
                return (yield)

    words = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--override-ini=addopts=", "--strict-markers"]
    words += ["--jaxtyping-packages=vq,beartype.beartype"] if is_installed(BEARTYPE) else []
    words += ["-W", "default"]  # what another version of torch warns of, or of a plugin that is missing
    code = int(pytest.main([*words, file], plugins=[Recorder(Rows(__doc__)), Limit()]))
    sys.exit(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code)


def main() -> int:
    """Runs the tests, each file in a process of its own: an error of CUDA would end those of other files too."""
    rows = Rows(__doc__)
    if not is_installed(PYTEST):
        print("pytest is not installed; --needs lists the wheels to carry here", file=sys.stderr)
        return 2
    spawned = multiprocessing.get_context("spawn")
    files = marked_files()
    for file in files[:1] if rows.is_small else files:
        for _ in range(CRASHES):
            process = spawned.Process(target=run_file, args=(file,))
            process.start()
            process.join()
            if process.exitcode is not None and process.exitcode >= 0:
                break
    found = json.loads(rows.out.read_text())["rows"].values() if rows.out.is_file() else []
    return int(not found or not {row["outcome"] for row in found} <= {"passed", "skipped"})


if __name__ == "__main__":
    sys.exit(main())
