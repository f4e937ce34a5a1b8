"""Writes docs/zoo.md, the page of published models, from the catalogue.

python docs/site/zoo.py
"""

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path

import torch

from vq import zoo
from vq.registry import build
from vq.zoo import Scores

PAGE = Path(__file__).parents[1] / "zoo.md"
HEAD = """\
# Published models
The catalogue has {count} names in {families} families, for {files} different files; some files have one name per
resolution. Each model is loaded by its name. This page is generated from the catalogue (`python docs/site/zoo.py`).

A file that you have:
```bash
mkdir -p pretrained/llamagen && cp ~/Downloads/vq_ds16_c2i.pt pretrained/llamagen/
vq inference zoo:llamagen/vq_ds16_c2i cat.png --out out
vq test zoo:llamagen/vq_ds16_c2i --data imagenet --expect
```
```python
import vq
from vq.data import read_image
from vq.ops.images import save_png, to_signed_unit, to_uint8

tokenizer = vq.load("zoo:llamagen/vq_ds16_c2i")
indices = tokenizer.encode(to_signed_unit(read_image("cat.png"))[None])  # sides that 16 divides
save_png(to_uint8(tokenizer.decode(indices)[0]), "reconstruction.png")
```
* `vq list pretrained "*ds16*"` lists names, and `vq.list_pretrained` gives them in Python.
* The file is looked for as `pretrained/FAMILY/FILE`, in the user's cache, and in the caches of the hub's client and
  of `torch.hub`. `vq.load_pretrained(NAME, source=FILE)` takes it from anywhere. `vq weights zoo:NAME` and
  `vq.load_pretrained(NAME)` download it from its publisher, where the catalogue knows the address of a file.
* It is converted once, into the user's cache. It must have exactly the tensors of the model. Its SHA-256 is
  compared with the published one, or else with that of the file that was used first.
* `zoo:NAME` is accepted wherever weights are: `--load-model-from`, `it_state_dict::zoo:NAME`,
  `pretrained_tokenizer(weights=[...])`. `configs/zoo/imagenet.py` fine-tunes the decoder of a published tokenizer.
* `vq convert FILE` converts a file that is not in the catalogue but in one of the [dialects](checkpoints.md).

**What was compared.** *recorded*: the project's own module was given weights and images, and the tests compare its
recorded indices exactly and its images to 1e-4. *random weights*: its module runs in the tests. For every name, the
tests also compare the names and shapes of all published tensors with the model. **No published weights were
available: no score was measured here.** The scores below are those of the publishers, each with its own protocol.
"""
TAIL = """\
## Not read
| project | reason |
|---|---|
| MaskBit's transformers | there is no generator that embeds bits here |
| VQGAN+ with 10 bits as trained after the paper | its publisher gives no file |
| Open-MAGVIT2's and IBQ's transformers, Open-MAGVIT2's tokenizer of videos | their networks are not written yet |
| Infinity with 64 bits | 2^64 codes do not fit an int64 index |
| RQ-VAE's tokenizers of texts and images (`cc3m`, `cc3m_cc12m_yfcc`) | no config says their shapes |
| RQ-Transformer | its networks are not written yet |
| videos with Emu3's tokenizer | there are no data or models of videos here; images are read |
| Emu3.5 | its code does not say the sizes of its tokenizer; `--dialect ibq` reads the names of its code |
| TA-TiTok | its decoder needs the features of a caption |
| One-D-Piece | its source was not available |
| VAR's and Infinity's transformers | there is no generator over scales here |
| LlamaGen's text-conditional transformers | there is no generator conditioned on text here |
| amused, Kandinsky, vq-diffusion | their configs were not available; `diffusers` reads a plain `VQModel` |
| taming's transformers for CelebA-HQ, ADE20K, COCO-Stuff | no config says the shapes of their tokenizers |
"""


def tokens(model: zoo.Model) -> str:
    """The number of indices of an image and of different codes, and the bits that the indices take."""
    with torch.device("meta"):
        built = build(next(iter(model.config.values())), path=next(iter(model.config)))
    if model.tokenizer is not None:
        count = sum(parameter.numel() for parameter in built.parameters())
        return f"{count / 1e6:.0f} M parameters, for `{model.tokenizer}` |"
    shape = built.indices_shape(model.resolution, model.resolution)
    size = built.codebook_size
    codes = f"{size:,}" if size <= 2**20 else f"2^{math.log2(size):g}"
    bits = math.prod(shape) * math.log2(size)
    return f"{' x '.join(map(str, shape))} of {codes} | {bits:,.0f}"


def lines() -> Iterator[str]:
    """The lines of the page."""
    names = zoo.names()
    files = {
        (model.address, model.file, model.name if model.file is None else "")
        for family in zoo.FAMILIES.values()
        for model in family.models
    }
    yield HEAD.format(count=len(names), families=len(zoo.FAMILIES), files=len(files))
    for family in zoo.FAMILIES.values():
        yield f"## {family.title}"
        yield (
            f"[Paper]({family.paper}), code `{family.repository}`, licence {family.licence}.\n"
            f"Pixels in [{family.value_range[0]:g}, {family.value_range[1]:g}]. Compared: {family.parity}. "
            "Published weights: not yet run.\n"
        )
        yield "| name | px | indices | bits | published |"
        yield "|---|---|---|---|---|"
        for model in family.models:
            published = [score_row(row, model.resolution) for row in model.scores] or ["-"]
            start = f"| `{family.name}/{model.name}` | {model.resolution} | {tokens(model)} |"
            if len(start) + len(published[0]) > 130:
                yield f"{start} |"
            else:
                yield f"{start} {published.pop(0)} |"
            yield from (f"| | | | | {row} |" for row in published)
        yield ""
        sources = dict.fromkeys(row.source for model in family.models for row in model.scores)
        if sources:
            yield from textwrap.wrap(f"Published in {'; '.join(sources)}.", width=130)
            yield ""


def score_row(row: Scores, resolution: int) -> str:
    """Published scores and their protocol: the size where it is not the model's, the crop where it is stated.

    The note says the size of images that are not resized to one.
    """
    protocol = [row.data]
    if row.size != resolution:
        protocol.append(f"{row.size} px" if row.size else row.note or "size not stated")
    if row.crop:
        protocol.append({"centre": "centre crop", "adm": "ADM's crop"}[row.crop])
    return ", ".join(f"{key} {value:g}" for key, value in row.values.items()) + f" ({', '.join(protocol)})"


def page() -> str:
    """The text of the page."""
    return "\n".join([*lines(), TAIL])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
