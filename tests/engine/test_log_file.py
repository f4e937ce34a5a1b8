"""The log file of a run on a disk without room."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vq.engine.loop.launch import close_log, open_log

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device here that is always full")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_log()
    logging.getLogger("vq").propagate = True


def test_lines_wait_in_memory_until_there_is_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, logger = tmp_path / "log.txt", logging.getLogger("vq.engine")
    path.symlink_to("/dev/full")
    open_log(path)
    logger.info("first")
    logger.info("second")
    path.unlink()
    logger.info("third")
    logger.info("fourth")
    lines = [line.rpartition(" ")[2] for line in path.read_text().splitlines()]
    assert lines == ["first", "second", "third", "fourth"]
    console = capsys.readouterr().err
    said = re.findall(r"log\.txt: the disk is full .*; lines of the log are kept in memory until", console)
    assert len(said) == 1
    assert "Traceback" not in console


def test_a_full_disk_does_not_end_the_command_when_the_log_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.symlink_to("/dev/full")
    open_log(path)
    logging.getLogger("vq.engine").info("first")
    close_log()
