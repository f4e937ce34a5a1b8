"""The pictures of a run: reconstructions over the steps, their error, and generated images."""

from collections.abc import Iterator, Sequence

from vq.config import trained_section
from vq.engine.reporting.blocks import Block, Gallery, Heading, Picture, Text
from vq.engine.reporting.charts import evenly
from vq.engine.reporting.pictures import PictureError, embedded, error_map
from vq.engine.reporting.run_folder import Run

MOST_PICTURES = 6
WIDE = 600
"""In pixels; from this width on, a picture takes the width of the page."""


def pictures(runs: Sequence[Run]) -> Iterator[Block]:
    """What the evaluator drew at some steps, with the first and the last, and the error of the last reconstructions."""
    for run in runs:
        chosen = evenly(list(run.pictures.items()), MOST_PICTURES)
        words = _words_of_pictures(run)
        shown = []
        for step, file in chosen:
            title = f"{run.name}, step {step:,}"
            try:
                shown.append(embedded(file, alt=f"{title}: {words}", caption=title))
                if file == chosen[-1][1] and _reconstructs(run):
                    errors = error_map(file, caption=f"{title}, error of the reconstructions")
                    shown += [errors] if errors else []
            except PictureError as error:
                run.notes.append(f"{file.relative_to(run.folder)} cannot be shown: {error}")
        if shown:
            left = len(run.pictures) - len(chosen)
            yield Heading(text=run.name)
            remark = f" {left} pictures in between are left out." if left else ""
            yield Text(text=f"{words[:1].upper()}{words[1:]}.{remark}")
            yield _gallery(shown)


def generated(runs: Sequence[Run]) -> Iterator[Block]:
    """The grids of `vq generate`."""
    for run in runs:
        shown = []
        for file in run.generated:
            title = f"{run.name}, {file.relative_to(run.folder)}"
            try:
                shown.append(embedded(file, alt=f"Grid of generated images: {title}", caption=title))
            except PictureError as error:
                run.notes.append(f"{file.relative_to(run.folder)} cannot be shown: {error}")
        if shown:
            yield _gallery(shown)


def _gallery(shown: Sequence[Picture]) -> Gallery:
    """Pictures side by side, or below each other if one of them is large."""
    return Gallery(pictures=shown, is_wide=max(picture.width for picture in shown) > WIDE)


def _words_of_pictures(run: Run) -> str:
    """What the evaluator of a run draws."""
    if _reconstructs(run):
        return "rows of images of the validation set, each above the row of their reconstructions"
    if trained_section(run.config) == "generator":
        return "images that the generator drew"
    return "the results for a few fixed samples of the validation set"


def _reconstructs(run: Run) -> bool:
    """Whether the run trained a tokenizer that decodes images."""
    is_tokenizer = (
        trained_section(run.config) == "tokenizer" and run.class_of("tokenizer") != "FeatureTokenizer"
    )
    return is_tokenizer and run.class_of("tokenizer", "decoder") != ""
