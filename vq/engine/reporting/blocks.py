"""The parts of a report: plain text throughout, which the template turns into HTML and escapes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """Begins a part of a section, such as the part of one run."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        caption: What it shows.
        header: The title of each column.
        rows: The cells of each row.
        is_numeric: Whether all columns but the first hold numbers.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_numeric: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Parts of a whole, as a table with a bar in each row.

    Attributes:
        caption: What is divided.
        rows: Name, value in words, and share from 0 to 1.
    """

    kind: ClassVar[str] = "bars"
    caption: str
    rows: Sequence[tuple[str, str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture with its title.

    Attributes:
        source: A `data:` address.
        alt: What it shows, in words.
        caption: Its title.
        remark: What else a reader must know.
        width: In pixels; 0 for a drawing, which has any size.
        height: In pixels.
        values: The numbers of a drawing.
    """

    source: str
    alt: str
    caption: str
    remark: str = ""
    width: int = 0
    height: int = 0
    values: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Pictures side by side, as many as there is space for.

    Attributes:
        pictures: The pictures.
        is_wide: Whether each picture takes the whole width.
        has_legend: Whether the names of the runs and their lines stand above.
    """

    kind: ClassVar[str] = "gallery"
    pictures: Sequence[Picture]
    is_wide: bool = False
    has_legend: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A text that is shown when it is asked for.

    Attributes:
        summary: What the text is.
        text: The text, of any number of lines.
    """

    kind: ClassVar[str] = "code"
    summary: str
    text: str


Block = Text | Heading | Table | Bars | Gallery | Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        blocks: Its content.
    """

    name: str
    title: str
    blocks: list[Block] = field(default_factory=list)
