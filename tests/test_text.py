"""Untrusted names as printable text, and as file names without collisions."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vq.text import file_name, printable

NAMES = st.text(st.characters(), max_size=200)


@given(NAMES)
def test_printable_text_fits_on_one_line_and_is_utf8(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    shown.encode("utf-8")


@given(NAMES, NAMES)
def test_different_keys_have_different_file_names(first: str, second: str) -> None:
    assert (file_name(first) == file_name(second)) == (first == second)


@given(NAMES)
def test_a_file_name_is_one_short_visible_part_of_a_path(name: str) -> None:
    found = file_name(name)
    assert found.isascii()
    assert 0 < len(found) <= 140
    assert "/" not in found
    assert not found.startswith((".", "-"))


@pytest.mark.parametrize(
    "key", ["v/a/b-c.png", "v/a-b/c.png", "v/a/p q.png", "v/a/p,q.png", "..", "", "a" * 300]
)
def test_a_hashed_name_does_not_meet_the_plain_name_that_looks_like_it(key: str) -> None:
    assert file_name(file_name(key)) != file_name(key)


def test_bytes_that_are_not_utf8() -> None:
    name = os.fsdecode(b"x\xe4.png")
    assert printable(name) == "x\\udce4.png"
    assert file_name(name) != file_name(os.fsdecode(b"x\xe5.png"))
