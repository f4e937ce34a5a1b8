"""Quantizers of this project as modules of vector-quantize-pytorch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vq.interop.dialect import InteropError, NamedTensors
from vq.interop.vector_quantize_pytorch.classes import (
    FSQ_EPS,
    TEMPERATURE,
    identity,
    is_identity,
    on_cpu,
    reversed_bits,
)
from vq.interop.vector_quantize_pytorch.reading import from_vector_quantize_pytorch
from vq.pretrained import digest
from vq.quantizers import (
    BinarySphericalQuantizer,
    BottleneckQuantizer,
    CosineDistance,
    EMACodebook,
    EuclideanDistance,
    FiniteScalarQuantizer,
    KMeansInit,
    LearnedCodebook,
    LookupFreeQuantizer,
    ProductQuantizer,
    ProjectedCodebook,
    Quantizer,
    ResidualQuantizer,
    RotationTrick,
    StraightThrough,
    VectorQuantizer,
)

Written = tuple[str, dict[str, Any], dict[str, Tensor]]
"""The class, the arguments and the state dict of a module."""


def to_vector_quantize_pytorch(quantizer: Quantizer) -> tuple[str, Mapping[str, Any], NamedTensors]:
    """Converts a quantizer to a module of vector-quantize-pytorch that selects the same codes.

    Args:
        quantizer: A `VectorQuantizer`, a `ResidualQuantizer` or a `ProductQuantizer` of those, a
            `FiniteScalarQuantizer`, a `LookupFreeQuantizer` or a `BinarySphericalQuantizer`, or a
            `BottleneckQuantizer` around one.

    Returns:
        The class, the arguments of its constructor, and its state dict. `from_vector_quantize_pytorch` gives the
        tensors of the quantizer for them, bit for bit.

    Raises:
        InteropError: If the package has no module that computes the same.
    """
    name, arguments, state = _write(quantizer)
    _, again = from_vector_quantize_pytorch(name, state, **arguments)
    if digest(again) != digest(on_cpu(quantizer.state_dict())):
        raise _refused(quantizer, "one whose tensors are read again bit for bit", "others")
    return name, arguments, state


def _refused(part: object, expected: str, got: object) -> InteropError:
    return InteropError(f"{type(part).__name__} for vector-quantize-pytorch: expected {expected}, got {got}")


_SIGNS = (LookupFreeQuantizer, BinarySphericalQuantizer)


def _write(quantizer: Quantizer) -> Written:
    inner = quantizer.quantizer if isinstance(quantizer, BottleneckQuantizer) else quantizer
    maps = {
        f"{side}.{kind}": tensor
        for side in ("project_in", "project_out")
        if inner is not quantizer
        for kind, tensor in on_cpu(getattr(quantizer, side).state_dict()).items()
    }
    if maps and quantizer.codebook_dim == inner.codebook_dim and type(inner) not in _SIGNS:
        raise _refused(
            quantizer, "linear maps between different numbers of channels", f"{inner.codebook_dim}"
        )
    for kind, write in _WRITERS.items():
        if type(inner) is kind:
            name, arguments, state = write(inner, maps)
            return name, {"dim": quantizer.codebook_dim, **arguments}, state
    raise _refused(
        inner,
        f"one of {', '.join(kind.__name__ for kind in _WRITERS)}, or BottleneckQuantizer around one",
        "it",
    )


def _write_vector(quantizer: VectorQuantizer, maps: Mapping[str, Tensor]) -> Written:
    if type(quantizer.codebook) is ProjectedCodebook:
        return _write_simvq(quantizer, quantizer.codebook, maps)
    return "VectorQuantize", _vector_arguments(quantizer), {**_codebook_tensors([quantizer]), **maps}


def _write_heads(quantizer: ProductQuantizer, maps: Mapping[str, Tensor]) -> Written:
    parts = [part for part in quantizer.parts if type(part) is VectorQuantizer]
    if len(parts) != len(quantizer.parts) or quantizer.padding or quantizer.is_packed:
        raise _refused(quantizer, "VectorQuantizers, neither padded nor packed", "other parts")
    heads = len(quantizer.widths)
    sharing = {"heads": heads, "separate_codebook_per_head": len(parts) > 1}
    return (
        "VectorQuantize",
        {**_common_arguments(quantizer, parts), **sharing},
        {**_codebook_tensors(parts), **maps},
    )


def _common_arguments(quantizer: Quantizer, parts: Sequence[VectorQuantizer]) -> dict[str, Any]:
    """The arguments of all parts of a quantizer."""
    arguments = [_vector_arguments(part) for part in parts]
    if any(own != arguments[0] for own in arguments):
        raise _refused(quantizer, "parts with equal settings", "different ones")
    if len({int(part.codebook.initialised) for part in parts}) > 1:
        raise _refused(quantizer, "codebooks that are all initialised, or none", "some of them")
    return arguments[0]


def _vector_arguments(quantizer: VectorQuantizer) -> dict[str, Any]:
    """The arguments of `VectorQuantize` that its tensors do not show."""
    book, is_cosine = quantizer.codebook, type(quantizer.distance) is CosineDistance
    rotates = _rotates(quantizer)
    if not is_cosine and type(quantizer.distance) is not EuclideanDistance:
        raise _refused(quantizer, "EuclideanDistance or CosineDistance", type(quantizer.distance).__name__)
    if book.revival is not None or type(book) not in (EMACodebook, LearnedCodebook):
        raise _refused(book, "EMACodebook or LearnedCodebook without a revival", "another codebook")
    if not bool(book.initialised) and not isinstance(book.init, KMeansInit):
        raise _refused(book, "initialised codes, or KMeansInit", type(book.init).__name__)
    arguments: dict[str, Any] = {
        "codebook_size": book.size,
        "codebook_dim": book.dim,
        "use_cosine_sim": is_cosine,
        "commitment_weight": quantizer.commitment_weight,
        "kmeans_init": isinstance(book.init, KMeansInit),
        "rotation_trick": rotates,
    }
    if isinstance(book, EMACodebook):
        return arguments | {"decay": book.decay, "eps": book.eps}
    return arguments | {"learnable_codebook": True, "ema_update": False}


def _rotates(quantizer: VectorQuantizer) -> bool:
    """Whether the estimator is the rotation trick, and not the straight-through one."""
    kind = type(quantizer.estimator)
    if quantizer.regularisers or kind not in (RotationTrick, StraightThrough):
        raise _refused(
            quantizer,
            "RotationTrick or StraightThrough and no regularisers",
            f"{kind.__name__} or regularisers",
        )
    return kind is RotationTrick


def _codebook_tensors(quantizers: Sequence[VectorQuantizer]) -> dict[str, Tensor]:
    """The tensors of the codebooks of one `VectorQuantize`."""
    states = [on_cpu(quantizer.codebook.state_dict()) for quantizer in quantizers]
    embed = torch.stack([state["weight"] for state in states])
    ones = torch.ones(embed.shape[1])
    return {
        "_codebook.initted": states[0]["initialised"].bool(),
        "_codebook.cluster_size": torch.stack([state.get("usage", ones) for state in states]),
        "_codebook.embed_avg": torch.stack([state.get("sums", state["weight"]) for state in states]),
        "_codebook.embed": embed,
    }


def _write_residual(quantizer: ResidualQuantizer, maps: Mapping[str, Tensor]) -> Written:
    stages = list(quantizer.stages)
    vectors = [stage for stage in stages if type(stage) is VectorQuantizer]
    count = len(set(map(id, stages)))
    if len(vectors) != len(stages) or count not in (1, len(stages)):
        raise _refused(quantizer, "stages that are VectorQuantizers, all shared or none", "other stages")
    if quantizer.scales is not None or quantizer.prefix_rate:
        raise _refused(quantizer, "neither scales nor a prefix_rate", "one of them")
    arguments = _common_arguments(quantizer, vectors)
    state = {
        f"layers.{number}.{key}": tensor
        for number, stage in enumerate(vectors)
        for key, tensor in _codebook_tensors([stage]).items()
    }
    sharing = {"num_quantizers": len(stages), "shared_codebook": count == 1 and len(stages) > 1}
    return "ResidualVQ", {**arguments, **sharing}, {**state, **maps}


def _write_simvq(quantizer: VectorQuantizer, book: ProjectedCodebook, maps: Mapping[str, Tensor]) -> Written:
    state = on_cpu(book.state_dict())
    if maps or state["bias"].any() or type(quantizer.distance) is not EuclideanDistance:
        raise _refused(book, "EuclideanDistance, no bottleneck and a bias of 0", "another one")
    if not bool(book.initialised):
        raise _refused(book, "initialised codes", type(book.init).__name__)
    arguments = {
        "codebook_size": book.size,
        "rotation_trick": _rotates(quantizer),
        "input_to_quantize_commit_loss_weight": quantizer.commitment_weight,
    }
    tensors = {"frozen_codebook": state["coefficients"], "code_transform.weight": state["weight"]}
    return "SimVQ", arguments, tensors


def _write_fsq(quantizer: FiniteScalarQuantizer, maps: Mapping[str, Tensor]) -> Written:
    if (quantizer.eps, quantizer.shift) != (FSQ_EPS, "atanh"):
        raise _refused(
            quantizer,
            f"eps={FSQ_EPS} and shift='atanh'",
            f"eps={quantizer.eps} and shift={quantizer.shift!r}",
        )
    return "FSQ", {"levels": list(quantizer.levels)}, dict(maps)


def _write_signs(
    quantizer: LookupFreeQuantizer | BinarySphericalQuantizer, maps: Mapping[str, Tensor]
) -> Written:
    bits = quantizer.codebook_dim
    if quantizer.temperature != TEMPERATURE or quantizer.group_bits < min(bits, 24):
        raise _refused(
            quantizer,
            f"temperature={TEMPERATURE} and group_bits={min(bits, 24)}",
            f"temperature={quantizer.temperature} and group_bits={quantizer.group_bits}",
        )
    theirs = reversed_bits(maps or identity(bits))
    is_projected = not is_identity(theirs)
    arguments = {
        "codebook_size": 2**bits,
        "entropy_loss_weight": quantizer.entropy_weight,
        "commitment_loss_weight": quantizer.commitment_weight,
        "diversity_gamma": quantizer.diversity_weight,
        "spherical": isinstance(quantizer, BinarySphericalQuantizer),
        "has_projections": is_projected,
    }
    mask = {"mask": 2 ** torch.arange(bits - 1, -1, -1)}
    return "LFQ", arguments, {**mask, **(theirs if is_projected else {})}


_WRITERS: Mapping[type[nn.Module], Callable[[Any, Mapping[str, Tensor]], Written]] = {
    VectorQuantizer: _write_vector,
    ProductQuantizer: _write_heads,
    ResidualQuantizer: _write_residual,
    FiniteScalarQuantizer: _write_fsq,
    LookupFreeQuantizer: _write_signs,
    BinarySphericalQuantizer: _write_signs,
}
