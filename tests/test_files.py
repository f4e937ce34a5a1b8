"""Reading untrusted files: only regular files are read, and a header cannot make a reader allocate too much memory."""

import io
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vq.files import read_npy, read_regular


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def claiming(shape: str, descr: str = "<i8") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)


def test_an_array_comes_back(tmp_path: Path) -> None:
    for array in (np.arange(6).reshape(2, 3), np.zeros((0, 0), int), np.float32(3), np.ones(4, np.uint8)):
        (tmp_path / "a.npy").write_bytes(npy(array))
        found = read_npy(tmp_path / "a.npy")
        assert np.array_equal(found, array)
        assert found.dtype == array.dtype


HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "header only": npy(np.arange(100))[:128],
    "half": npy(np.arange(100))[:500],
    "a terabyte": claiming("(137438953472,)"),
    "a line of an exabyte": claiming("(1, 1152921504606846976)"),
    "an overflow": claiming("(4611686018427387904, 8)"),
    "negative": claiming("(-5,)"),
    "objects": npy(np.array([{}, []], dtype=object), allow_pickle=True),
    "pickle": b"\x80\x04\x8c\x02os\x94.",
    "code": claiming("__import__('os').abort()"),
    "no type": claiming("(2,)", descr="nonsense"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_hostile_array_is_refused_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.npy").write_bytes(HOSTILE[kind])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ValueError, OSError)):
        read_npy(tmp_path / "a.npy")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_an_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=1)
    with pytest.raises(ValueError, match=r"expected one array as numpy.save writes it, got an archive"):
        read_npy(tmp_path / "a.npz")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path, tmp_path / "nothing"):
        with pytest.raises(OSError, match=r"expected a regular file|directory|No such file"):
            read_regular(path, most=1000)
        with pytest.raises(OSError, match=r"expected a regular file|directory|No such file"):
            read_npy(path)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert read_regular(tmp_path / "a", most=10) == b"x" * 10
    with pytest.raises(OSError, match="the file has 10 bytes, more than 9"):
        read_regular(tmp_path / "a", most=9)
