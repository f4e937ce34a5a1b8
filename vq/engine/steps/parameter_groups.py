"""The parameters that a step trains, in groups with a learning rate and a weight decay of their own."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import nn

from vq.text import suggest

Decay = Literal["all", "matrices"]
NOT_DECAYED = re.compile(
    r"(.*\.)?(extra|latents|latent_places|mask_token|cls_token|reg_token|dist_token|pos_embed|positions\.\w+"
    r"|codebook\.\w+|codebooks\.\d+\.\w+)"
)
"""Names of matrices that are no weights of a layer: learned tokens, positions, and the codes themselves."""


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], *, rates: Mapping[str, float], decay: str
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """The parameters of a model for its optimizer: a plain list, or groups if the settings ask for them.

    Args:
        named: The parameters with their names in the model.
        rates: The name of a part -> the factor of the learning rate of its parameters; the longest name counts.
            Parameters that are in no named part have the factor 1.
        decay: `"all"`, or `"matrices"` for a weight decay of 0 for vectors (norms, biases), learned tokens, positions
            and codes.

    Raises:
        ValueError: If a part has no parameter, a factor is not above 0, or there is no such `decay`.
    """
    named = list(named)
    if decay not in ("all", "matrices"):
        raise ValueError(f"decay: expected all or matrices, got {decay!r}")
    for part, rate in rates.items():
        if not rate > 0:
            raise ValueError(
                f"rates: expected a factor above 0 for {part!r}, got {rate}; to stop a part, freeze it"
            )
        if not any(_belongs(name, part) for name, _ in named):
            known = {name.rsplit(".", 1)[0] for name, _ in named} | {name.split(".")[0] for name, _ in named}
            raise ValueError(f"rates: no trained parameter belongs to {part!r}{suggest(part, sorted(known))}")
    if not rates and decay == "all":
        return [parameter for _, parameter in named]
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        parts = [part for part in rates if _belongs(name, part)]
        rate = rates[max(parts, key=len)] if parts else 1.0
        is_decayed = decay == "all" or (parameter.ndim >= 2 and not NOT_DECAYED.fullmatch(name))
        groups.setdefault((rate, is_decayed), []).append(parameter)
    return [
        {"params": parameters, "rate": rate} | ({} if is_decayed else {"weight_decay": 0.0})
        for (rate, is_decayed), parameters in groups.items()
    ]


def _belongs(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
