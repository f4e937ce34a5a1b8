"""Modules of vector-quantize-pytorch as quantizers of this project."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vq.interop.dialect import InteropError, NamedTensors
from vq.interop.vector_quantize_pytorch.classes import (
    ARGUMENTS,
    FSQ_EPS,
    TEMPERATURE,
    identity,
    is_identity,
    on_cpu,
    reversed_bits,
)
from vq.pretrained import digest
from vq.registry import build
from vq.text import shown, suggest

Node = dict[str, Any]
"""A quantizer in a config, as plain data."""
Read = tuple[Node, dict[str, Tensor]]
"""A quantizer and its state dict."""

_LENGTH_TOLERANCE = 1e-3


def from_vector_quantize_pytorch(
    name: str, state: NamedTensors, **arguments: Any
) -> tuple[Node, NamedTensors]:
    """Converts a module of vector-quantize-pytorch to a quantizer that selects the same codes.

    Args:
        name: The class: `VectorQuantize`, `ResidualVQ`, `FSQ`, `LFQ` or `SimVQ`.
        state: The state dict of the module.
        **arguments: The arguments that its constructor was given. Those that matter in training alone and have no
            counterpart here are left out.

    Returns:
        The quantizer in a config, and its state dict on the CPU. `vq.registry.build` builds it.

    Raises:
        InteropError: If there is no such class or argument, a tensor is left over or missing, or the quantizer would
            compute something else.

    Example:
        >>> node, _ = from_vector_quantize_pytorch("FSQ", {}, levels=[8, 5, 5, 5])
        >>> node
        {'type': 'vq.quantizers.FiniteScalarQuantizer', 'levels': [8, 5, 5, 5], 'eps': -0.001}
    """
    if name not in ARGUMENTS:
        raise InteropError(
            f"vector-quantize-pytorch: expected one of {', '.join(ARGUMENTS)}, got {name!r}; others have no counterpart"
        )
    known = ARGUMENTS[name]
    for key in arguments:
        if key not in known:
            raise InteropError(
                f"{name}: expected arguments among {', '.join(known)}, got {key!r}{suggest(key, known)}; leave it out "
                "if it only matters in training or for the order of the axes, otherwise there is no counterpart"
            )
    _check_types(name, arguments)
    left = on_cpu(state)
    node, tensors = _READERS[name](_State(name, left), {**known, **arguments})
    if left:
        raise InteropError(
            f"{name}: expected the tensors of a module that can be converted, got {len(left)} with no counterpart "
            f"({', '.join(list(left)[:4])}{', ...' if len(left) > 4 else ''})"
        )
    _check_shapes(name, node, tensors)
    return node, tensors


def _check_types(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuses values that no constructor of the package takes."""
    flags = ("ema_update", "rotation_trick", "has_projections")
    for key, value in arguments.items():
        default = ARGUMENTS[name][key]
        if key == "levels":
            is_valid = isinstance(value, list | tuple) and all(type(level) is int for level in value)
        elif key in flags or isinstance(default, bool):
            is_valid = isinstance(value, bool) or (value is None and default is None)
        elif isinstance(default, float):
            is_valid = type(value) in (int, float)
        else:
            is_valid = value is None or type(value) is int
        if not is_valid:
            raise InteropError(f"{name}: expected {key} as the constructor takes it, got {shown(value)}")


def _check_shapes(name: str, node: Node, tensors: NamedTensors) -> None:
    """Refuses tensors that are not those of a quantizer."""
    with torch.device("meta"):
        own = build(node, path="quantizer").state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if different := sorted(dict(shapes.items() ^ {k: tuple(t.shape) for k, t in own.items()}.items())):
        raise InteropError(
            f"{name}: expected tensors whose shapes agree, got others of {', '.join(different[:4])}"
            f"{', ...' if len(different) > 4 else ''}"
        )


class _State:
    """Takes the tensors of a state dict one by one, so that those that are left over are known."""

    def __init__(self, name: str, left: dict[str, Tensor], prefix: str = "") -> None:
        self.name, self.left, self.prefix = name, left, prefix

    def has(self, key: str) -> bool:
        """Whether there is such a tensor."""
        return f"{self.prefix}{key}" in self.left

    def take(self, key: str, axes: int | None) -> Tensor:
        """Removes and returns a tensor; `axes` of None is any number."""
        tensor = self.left.get(f"{self.prefix}{key}")
        if tensor is None or axes not in (None, tensor.ndim):
            found = "none" if tensor is None else f"the shape {tuple(tensor.shape)}"
            raise InteropError(
                f"{self.name}: expected a tensor {self.prefix}{key} of {axes} axes, got {found}"
            )
        return self.left.pop(f"{self.prefix}{key}")

    def inside(self, prefix: str) -> "_State":
        """The tensors whose names begin with a prefix."""
        return _State(self.name, self.left, f"{self.prefix}{prefix}")


def _check_sizes(name: str, arguments: Mapping[str, Any], **found: int) -> None:
    """Refuses sizes among the arguments that are not those of the tensors."""
    for key, size in found.items():
        if arguments[key] not in (None, size):
            raise InteropError(
                f"{name}: expected {key}={size}, as the tensors say, got {shown(arguments[key])}"
            )


def _projected(state: _State, node: Node, tensors: dict[str, Tensor]) -> Read:
    """A quantizer with the linear maps beside it, if there are any."""
    if not state.has("project_in.weight"):
        return node, tensors
    maps = {
        f"{side}.{kind}": state.take(f"{side}.{kind}", axes)
        for side in ("project_in", "project_out")
        for kind, axes in (("weight", 2), ("bias", 1))
    }
    return _bottleneck(node, tensors, maps)


def _bottleneck(node: Node, tensors: dict[str, Tensor], maps: Mapping[str, Tensor]) -> Read:
    dim = maps["project_in.weight"].shape[1]
    inner = {f"quantizer.{key}": tensor for key, tensor in tensors.items()}
    return {"type": "vq.quantizers.BottleneckQuantizer", "quantizer": node, "dim": dim}, {**inner, **maps}


def _read_codebooks(
    state: _State, arguments: Mapping[str, Any], dim: int | None
) -> tuple[Node, list[dict[str, Tensor]]]:
    """A `VectorQuantizer`, and its tensors for each codebook of one `VectorQuantize`.

    Args:
        state: The tensors of the module.
        arguments: The arguments of its constructor.
        dim: The number of channels of its vectors; None for that of the codes.
    """
    inner = state.inside("_codebook.")
    embed, sums, usage = inner.take("embed", 3), inner.take("embed_avg", 3), inner.take("cluster_size", 2)
    if not len(embed) == len(sums) == len(usage):
        raise InteropError(
            f"{state.name}: expected codes and averages of as many codebooks, got {len(embed)}, {len(sums)} and "
            f"{len(usage)}"
        )
    initted = inner.take("initted", None)  # older versions have one axis
    is_ready = initted.is_meta or bool(initted.all())
    _, size, width = embed.shape
    _check_sizes(state.name, arguments, codebook_size=size, codebook_dim=width)
    learns = bool(arguments["learnable_codebook"])
    if arguments["ema_update"] not in (None, not learns) or (learns and arguments["use_cosine_sim"]):
        raise InteropError(
            f"{state.name}: expected codes that are averages, or Euclidean ones that learn by gradient, got "
            f"learnable_codebook={learns}, ema_update={arguments['ema_update']}, "
            f"use_cosine_sim={arguments['use_cosine_sim']}"
        )
    if not is_ready and not arguments["kmeans_init"]:
        raise InteropError(
            f"{state.name}: expected kmeans_init=True, since the codes are not initialised yet"
        )
    if arguments["use_cosine_sim"] and is_ready:
        _check_lengths(state.name, embed.flatten(0, 1))
    codebook: Node = {
        "type": f"vq.quantizers.{'LearnedCodebook' if learns else 'EMACodebook'}",
        "size": size,
        "dim": width,
        "init": {"type": f"vq.quantizers.{'KMeansInit' if arguments['kmeans_init'] else 'UniformInit'}"},
    }
    tensors = [
        {"codebook.weight": codes, "codebook.initialised": torch.tensor(is_ready, dtype=torch.uint8)}
        for codes in embed
    ]
    if not learns:
        codebook |= {"decay": arguments["decay"], "eps": arguments["eps"]}
        for own, total, count in zip(tensors, sums, usage, strict=True):
            own |= {"codebook.sums": total, "codebook.usage": count}
    rotates = (dim or width) > 1 if arguments["rotation_trick"] is None else arguments["rotation_trick"]
    return _vector(codebook, arguments["commitment_weight"], rotates, arguments["use_cosine_sim"]), tensors


def _vector(codebook: Node, commitment_weight: float, rotates: bool, is_cosine: bool = False) -> Node:
    """A `VectorQuantizer` in a config."""
    return {
        "type": "vq.quantizers.VectorQuantizer",
        "codebook": codebook,
        "commitment_weight": commitment_weight,
        "estimator": {"type": f"vq.quantizers.{'RotationTrick' if rotates else 'StraightThrough'}"},
        "distance": {"type": f"vq.quantizers.{'CosineDistance' if is_cosine else 'EuclideanDistance'}"},
    }


def _check_lengths(place: str, codes: Tensor) -> None:
    """Refuses codes that are not on the unit sphere: vector-quantize-pytorch does not divide them by their length."""
    if codes.is_meta:
        return
    lengths = codes.float().norm(dim=1)
    if ((lengths - 1).abs() > _LENGTH_TOLERANCE).any():
        raise InteropError(
            f"{place}: expected codes of length 1, since they are compared by their cosine, got lengths from "
            f"{lengths.min():.3f} to {lengths.max():.3f}; divide each code by its length, which changes no index"
        )


def _read_vector(state: _State, arguments: Mapping[str, Any]) -> Read:
    heads, is_projected = arguments["heads"], state.has("project_in.weight")
    dim = state.left["project_in.weight"].shape[-1] if is_projected else None
    node, codebooks = _read_codebooks(state, arguments, dim)
    count = heads if arguments["separate_codebook_per_head"] else 1
    if len(codebooks) != count or heads < 1:
        raise InteropError(
            f"{state.name}: expected as many codebooks as heads={heads} if they are separate, else one, got "
            f"{len(codebooks)}"
        )
    width, tensors = node["codebook"]["dim"] * heads, codebooks[0]
    if heads > 1:
        parts: Node = {"quantizers": [node] * count} if count > 1 else {"quantizers": [node], "groups": heads}
        node = {"type": "vq.quantizers.ProductQuantizer", **parts}
        tensors = {f"parts.{i}.{key}": t for i, own in enumerate(codebooks) for key, t in own.items()}
    node, tensors = _projected(state, node, tensors)
    _check_sizes(state.name, arguments, dim=node.get("dim", width))
    return node, tensors


def _read_residual(state: _State, arguments: Mapping[str, Any]) -> Read:
    depth = 0
    while state.has(f"layers.{depth}._codebook.embed"):
        depth += 1
    _check_sizes(state.name, arguments, num_quantizers=depth)
    layers = [state.inside(f"layers.{number}.") for number in range(depth)]
    stages = [
        (node, own)
        for layer in layers
        for node, books in [_read_codebooks(layer, arguments, None)]
        for own in books
    ]
    if not stages or len(stages) != depth or any(node != stages[0][0] for node, _ in stages):
        raise InteropError(f"{state.name}: expected one or more layers of equal sizes, got {depth} layers")
    quantizers: Node = {"quantizers": [node for node, _ in stages]}
    if arguments["shared_codebook"]:
        if any(_differ(tensors, stages[0][1]) for _, tensors in stages):
            raise InteropError(f"{state.name}: expected equal codebooks for shared_codebook=True, got others")
        quantizers = {"quantizers": [stages[0][0]], "depth": depth}
    tensors = {f"stages.{i}.{key}": t for i, (_, own) in enumerate(stages) for key, t in own.items()}
    dim = stages[0][0]["codebook"]["dim"]
    node, tensors = _projected(state, {"type": "vq.quantizers.ResidualQuantizer", **quantizers}, tensors)
    _check_sizes(state.name, arguments, dim=node.get("dim", dim))
    return node, tensors


def _differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return not any(t.is_meta for t in one.values()) and digest(one) != digest(other)


def _read_fsq(state: _State, arguments: Mapping[str, Any]) -> Read:
    levels = list(arguments["levels"])
    if not levels or min(levels) < 3:
        raise InteropError(
            f"FSQ: expected levels of at least 3, which no tensor shows, got {levels or 'none'}"
        )
    node: Node = {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": levels, "eps": FSQ_EPS}
    node, tensors = _projected(state, node, {})
    _check_sizes("FSQ", arguments, dim=node.get("dim", len(levels)))
    return node, tensors


def _read_lfq(state: _State, arguments: Mapping[str, Any]) -> Read:
    bits = len(state.take("mask", 1))
    is_projected = state.has("project_in.weight")
    weights = {
        "bits": bits,
        "entropy_weight": arguments["entropy_loss_weight"],
        "diversity_weight": arguments["diversity_gamma"],
        "temperature": TEMPERATURE,
        "commitment_weight": arguments["commitment_loss_weight"],
        "group_bits": min(bits, 24),
    }
    kind = "BinarySphericalQuantizer" if arguments["spherical"] else "LookupFreeQuantizer"
    node: Node = {"type": f"vq.quantizers.{kind}", **weights}
    maps = _projected(state, node, {})[1] if is_projected else identity(bits)
    _check_sizes(
        "LFQ",
        arguments,
        dim=maps["project_in.weight"].shape[1],
        codebook_size=2**bits,
        has_projections=is_projected,
    )
    maps = reversed_bits(maps)
    return (node, {}) if is_identity(maps) else _bottleneck(node, {}, maps)


def _read_simvq(state: _State, arguments: Mapping[str, Any]) -> Read:
    coefficients, weight = state.take("frozen_codebook", 2), state.take("code_transform.weight", 2)
    size, dim = coefficients.shape
    _check_sizes("SimVQ", arguments, dim=len(weight), codebook_size=size, frozen_codebook_dim=dim)
    if tuple(weight.shape) != (dim, dim):
        raise InteropError(
            f"SimVQ: expected a square linear map of the frozen codes, got {tuple(weight.shape)} for {dim} channels"
        )
    codebook: Node = {"type": "vq.quantizers.ProjectedCodebook", "size": size, "dim": dim}
    tensors = {
        "codebook.coefficients": coefficients,
        "codebook.weight": weight,
        "codebook.bias": torch.zeros_like(weight[0]),
        "codebook.initialised": torch.tensor(1, dtype=torch.uint8),
    }
    commitment = arguments["input_to_quantize_commit_loss_weight"]
    return _vector(codebook, commitment, bool(arguments["rotation_trick"])), tensors


_READERS: Mapping[str, Callable[[_State, Mapping[str, Any]], Read]] = {
    "VectorQuantize": _read_vector,
    "ResidualVQ": _read_residual,
    "FSQ": _read_fsq,
    "LFQ": _read_lfq,
    "SimVQ": _read_simvq,
}
