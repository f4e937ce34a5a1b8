"""RQ-VAE of Kakao Brain: the names of VQGAN, and a residual quantizer whose stages share a codebook of averages."""

import re
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects.taming import SPELLING as TAMING
from vq.interop.spelling import INITIALISED, to_ours
from vq.interop.vqgan import check_networks, codebook_shape, describe_networks
from vq.quantizers import EuclideanDistance, ResidualQuantizer, VectorQuantizer
from vq.zoo.families.rq_vae import with_residuals
from vq.zoo.vqgan import vqgan

SPELLING = replace(TAMING, project="rq_vae")
_CODEBOOK = re.compile(r"quantizer\.codebooks\.(\d+)\.(weight|cluster_size_ema|embed_ema)")
_BUFFERS = {"weight": "weight", "cluster_size_ema": "usage", "embed_ema": "sums"}
"""Their names of the buffers of a codebook -> ours."""


def _describe(state: NamedTensors) -> dict[str, Any]:
    rows, dim = codebook_shape(state, "quantizer.codebooks.0.weight", "rq_vae")
    size = rows - 1  # the last row is a padding that no index selects
    depth = sum(1 for name in state if (match := _CODEBOOK.fullmatch(name)) and match[2] == "weight")
    section = vqgan(codes=size, dim=dim, **describe_networks(state, SPELLING))
    return {"tokenizer": with_residuals(section, codes=size, dim=dim, depth=depth)}


def _translate(state: NamedTensors) -> NamedTensors:
    codebooks = {name: match for name in state if (match := _CODEBOOK.fullmatch(name))}
    networks = {name: tensor for name, tensor in state.items() if name not in codebooks}
    ours = dict(to_ours(networks, SPELLING))
    is_initialised = ours.pop(INITIALISED)
    for name, match in codebooks.items():
        _check_shared(state, name, match)
        codebook = f"quantizer.stages.{match[1]}.codebook"
        tensor = state[name][:-1] if match[2] == "weight" else state[name]  # the padding has no averages
        ours[f"{codebook}.{_BUFFERS[match[2]]}"] = tensor
        ours[f"{codebook}.initialised"] = is_initialised
    return ours


def _check_shared(state: NamedTensors, name: str, match: re.Match[str]) -> None:
    """Refuses a stage whose codebook is not that of the first stage; the values of meta tensors cannot be compared."""
    first, own = state.get(f"quantizer.codebooks.0.{match[2]}"), state[name]
    if first is None or first.shape != own.shape or not (own.is_meta or torch.equal(first, own)):
        raise InteropError(
            f"rq_vae weights: expected one codebook that all stages share, got another {match[2]} in stage {match[1]} "
            "than in stage 0; weights with a codebook per stage (shared_codebook: false) cannot be read"
        )


def _check(tokenizer: nn.Module) -> None:
    quantizer = getattr(tokenizer, "quantizer", None)
    if not isinstance(quantizer, ResidualQuantizer) or quantizer.scales is not None:
        raise InteropError(
            f"rq_vae weights: expected a tokenizer with a ResidualQuantizer without scales, got "
            f"{type(quantizer).__name__}; use a config with one"
        )
    stage = quantizer.stages[0]
    if not isinstance(stage, VectorQuantizer) or not isinstance(stage.distance, EuclideanDistance):
        raise InteropError(
            "rq_vae weights: expected stages that are a VectorQuantizer with EuclideanDistance, got "
            f"{type(getattr(stage, 'distance', stage)).__name__}; the codes were learned with that distance, and "
            "another one would select other codes"
        )
    check_networks(tokenizer, "rq_vae")


DIALECT = Dialect(
    name="rq_vae",
    recognises=lambda state: (
        "quantizer.codebooks.0.cluster_size_ema" in state
        and "quantizer.codebooks.0.weight" in state
        and "encoder.down.0.block.0.conv1.weight" in state
    ),
    describe=_describe,
    translate=_translate,
    check=_check,
)
"""The weights of RQ-VAE (the first stage of RQ-Transformer)."""
