"""Exports a tiny tokenizer with each quantizer in each format: `PYTHONPATH=.:tests:tests/contract python THIS_FILE`.

It writes the table of docs/export.md, which a slow test compares with a new one.
"""

import re
import tempfile
from pathlib import Path

import torch
from quantizer_cases import CASES, found_classes
from torch import nn

from vq.exporting import FORMATS, Export, ExportError
from vq.quantizers import Estimator, Quantizer, Regulariser, Revival
from vq.tokenizers import ImageTokenizer

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
TRAINING_ONLY = {cls.__name__ for base in (Estimator, Regulariser, Revival) for cls in found_classes(base)}
"""What a quantizer uses in training only; it is not part of a file."""
NAMES = [name for name in CASES if name.rpartition("-")[2] not in TRAINING_ONLY]
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def tokenizer_with(quantizer: Quantizer) -> ImageTokenizer:
    """The quantizer between two convolutions, so that its own operators are what is tried."""
    encoder, decoder = nn.Conv2d(3, 8, 2, stride=2), nn.ConvTranspose2d(8, 3, 2, stride=2)
    for network in (encoder, decoder):
        network.downsample_factor, network.image_channels = 2, 3
    return ImageTokenizer(encoder=encoder, quantizer=quantizer, decoder=decoder)


def entry(name: str, target: str, folder: Path) -> str:
    torch.manual_seed(0)
    tokenizer = tokenizer_with(CASES[name]())
    export = Export(target=target, size=None if tokenizer.quantizer.grid else 16)
    try:
        export.write(tokenizer, ["encode", "decode"], folder / name / target)
    except ExportError as error:
        found = re.search(r"overload='(\w+)'|op for ([\w:]+)", str(error))
        return f"no: {'aten::view.dtype' if found else str(error)[:100]}"
    return "yes"


def table() -> str:
    lines = [f"| quantizer | {' | '.join(f'`{target}`' for target in FORMATS)} |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            lines.append(f"| {name} | {' | '.join(entry(name, t, Path(folder)) for t in FORMATS)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
