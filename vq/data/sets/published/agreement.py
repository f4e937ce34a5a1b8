"""Compares the images that a file lists with those in a folder, and names what disagrees."""

from collections.abc import Iterable
from pathlib import Path

from vq.data.base import DataError
from vq.files import read_regular
from vq.text import printable, shown

_MOST_BYTES = 2**26  # of a text file; the largest that is read, CelebA's partition in CSV, has 3 MB


def check_same_images(place: str, file: Path, *, listed: Iterable[str], found: Iterable[str]) -> None:
    """Checks that a file lists exactly the images that a folder contains.

    Args:
        place: The class that reads them. The error message starts with it.
        file: The file, for the error message.
        listed: The images in the file.
        found: The images in the folder.

    Raises:
        DataError: If they differ. The message names the first image of each kind.
    """
    in_file, in_folder = set(listed), set(found)
    if in_file == in_folder:
        return
    problems = [
        f"{len(images):,} {what}, such as {shown(min(images))}"
        for images, what in [
            (in_file - in_folder, "of its images have no file"),
            (in_folder - in_file, "image files are not in it"),
        ]
        if images
    ]
    raise DataError(
        f"{place}: expected {printable(str(file))} to list the {len(in_folder):,} images of the folder, but it lists "
        f"{len(in_file):,}: {'; '.join(problems)}; complete the images, or use the file that belongs to them"
    )


def lines_of(place: str, file: Path) -> list[str]:
    """Returns the lines of a text file.

    Raises:
        DataError: If it cannot be read, or is not UTF-8. The message starts with `place`.
    """
    try:
        return read_regular(file, most=_MOST_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{place}: the file {printable(str(file))} cannot be read ({error}); get it again"
        ) from error


def bad_line(place: str, file: Path, number: int, line: object, expected: str) -> DataError:
    """Returns the error for a line that has another form than expected."""
    return DataError(
        f"{place}: expected {expected}, got {shown(line)} in line {number} of {printable(str(file))}; "
        "get the file again"
    )
