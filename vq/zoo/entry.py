"""What the catalogue of published models says of each one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Parity = Literal["random weights", "recorded"]
Crop = Literal["centre", "adm"]
"""How images are cut to squares: `centre` resizes the shorter side and takes the centre; `adm` is the same with the
resizing of ADM, which LlamaGen, VAR and DiT use (`vq.data.ADMCenterCrop`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores that somebody has published, and how they were computed.

    Attributes:
        values: Score -> value, with the names that `vq test` gives: `fid` (of reconstructions, rFID), `psnr`, `ssim`,
            `lpips_vgg`, `codebook_usage` (in 0..1), and for generators `gfid` and `inception_score`.
        data: The images, such as `ImageNet val`.
        source: Who says so: a paper, or the file of a repository.
        size: The height and width of the images in pixels; None if not stated.
        crop: How the images were cut to squares; None if not stated.
        reference: The images with which the FID compares, such as `ImageNet val`; None if not stated.
        note: What else is known of the computation.
    """

    values: Mapping[str, float]
    data: str
    source: str
    size: int | None = None
    crop: Crop | None = None
    reference: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A published checkpoint.

    Attributes:
        name: Its name in the family, which is close to that of the file: `vq_ds16_c2i`.
        config: The sections of a config that describe it, as plain data with the full names of classes:
            `dict(tokenizer=dict(...))`, or `dict(generator=dict(...))`.
        file: The name of the published file; None if its publisher's text does not name it.
        address: Where it is served: `hf://OWNER/REPOSITORY` for a file of a hub repository, else the full address of
            the file, or of the folder or page where its publisher links it.
        sha256: The SHA-256 of the file, in hexadecimal, if it is published; else None.
        resolution: The height and width in pixels of the images that it was trained for.
        scores: What has been published about it.
        page: The page that trains such a model, as `vq configs` lists it, if there is one.
        tokenizer: The full name of the tokenizer of a generator, `family/name`.
        dialect: The names of its tensors, a key of `vq.interop.DIALECTS`, if it is not the dialect of the family.
        options: The options of the dialect that say what names and shapes do not show, such as the size of the images
            of a generator.
    """

    name: str
    config: Mapping[str, Any]
    file: str | None
    address: str
    sha256: str | None = None
    resolution: int = 256
    scores: tuple[Scores, ...] = ()
    page: str | None = None
    tokenizer: str | None = None
    dialect: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The models of one project.

    Attributes:
        name: A word, the first part of the names of its models.
        title: The title by which the models are known.
        dialect: The names of the tensors, a key of `vq.interop.DIALECTS`, for models that do not give another one.
        paper: The address of the paper.
        repository: The source of the published code, `owner/name` on GitHub.
        licence: That of the weights, or of the code if the weights have none.
        value_range: The pixel values that the networks take for black and white.
        parity: How the networks here were compared with those of the project: with their module and random weights
            in the tests, or with inputs and outputs that were recorded from it.
        models: The models, by size.
    """

    name: str
    title: str
    dialect: str
    paper: str
    repository: str
    licence: str
    value_range: tuple[float, float]
    parity: Parity
    models: tuple[Model, ...]
