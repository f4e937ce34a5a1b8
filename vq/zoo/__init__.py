"""The catalogue of published models: plain tables, one file per family, which import nothing.

`vq.list_pretrained("*f16*")` searches the names, and `vq.load("zoo:llamagen/vq_ds16_c2i")` loads a model.
"""

import fnmatch

from vq.errors import UserError
from vq.text import suggest
from vq.zoo.entry import Family, Model, Scores
from vq.zoo.families import (
    beitv2,
    chameleon,
    cosmos,
    emu3,
    ibq,
    infinity,
    janus,
    latent_diffusion,
    llamagen,
    maskbit,
    maskgit,
    open_magvit2,
    rq_vae,
    taming,
    titok,
    unitok,
    var,
)

__all__ = ["FAMILIES", "PREFIX", "Family", "Model", "Scores", "find", "is_name", "names"]

PREFIX = "zoo:"
"""What precedes the name of a published model where a path of weights is expected."""

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        taming.FAMILY,
        latent_diffusion.FAMILY,
        llamagen.FAMILY,
        janus.FAMILY,
        chameleon.FAMILY,
        emu3.FAMILY,
        var.FAMILY,
        infinity.FAMILY,
        cosmos.FAMILY,
        maskgit.FAMILY,
        maskbit.FAMILY,
        titok.FAMILY,
        unitok.FAMILY,
        open_magvit2.FAMILY,
        ibq.FAMILY,
        rq_vae.FAMILY,
        beitv2.FAMILY,
    )
}
"""Every family, by name."""


class UnknownModelError(UserError, KeyError):
    """A name that is not in the catalogue."""

    __str__ = Exception.__str__


def is_name(word: str) -> bool:
    """Whether a word is `zoo:` and a name."""
    return word.startswith(PREFIX)


def names(pattern: str = "*") -> list[str]:
    """The names of the published models that match a pattern, such as `*f16*` or `llamagen/*`."""
    known = [f"{family.name}/{model.name}" for family in FAMILIES.values() for model in family.models]
    return fnmatch.filter(known, pattern)


def find(name: str) -> tuple[Family, Model]:
    """The family and the entry of a published model.

    Args:
        name: `family/name`, with or without `zoo:` before it.

    Raises:
        UnknownModelError: If there is none; the message names the nearest one.
    """
    plain = name.removeprefix(PREFIX)
    family, _, rest = plain.partition("/")
    for model in FAMILIES[family].models if family in FAMILIES else ():
        if model.name == rest:
            return FAMILIES[family], model
    near = suggest(plain, names()).partition("; valid here")[0].rstrip("?")
    raise UnknownModelError(
        f"{name}: there is no published model of this name{near}; `vq list pretrained` shows all"
    )
