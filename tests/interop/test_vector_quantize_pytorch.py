"""Modules of vector-quantize-pytorch give the same indices as quantizers here, and both hold the same tensors."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_quantizers import CASES, trained, vectors
from torch import Tensor

from vq.interop import InteropError, from_vector_quantize_pytorch, to_vector_quantize_pytorch
from vq.pretrained import digest
from vq.quantizers import (
    BinarySphericalQuantizer,
    BottleneckQuantizer,
    CosineDistance,
    DataMomentsInit,
    EMACodebook,
    FiniteScalarQuantizer,
    FrozenCodebook,
    LearnedCodebook,
    LookupFreeQuantizer,
    NormalInit,
    OrthogonalRegulariser,
    ProductQuantizer,
    ProjectedCodebook,
    Quantizer,
    RadialQuantizer,
    ReplaceUnusedCodes,
    ResidualQuantizer,
    RotationTrick,
    StraightThrough,
    VectorQuantizer,
)
from vq.registry import build


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    with np.load(Path(__file__).with_name("vector_quantize_pytorch.npz")) as file:
        return {name: torch.from_numpy(file[name]) for name in file}


def state_of(recorded: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    prefix = f"{case}/state/"
    return {name.removeprefix(prefix): t for name, t in recorded.items() if name.startswith(prefix)}


def converted(name: str, state: dict[str, Tensor], **arguments: Any) -> Quantizer:
    node, tensors = from_vector_quantize_pytorch(name, state, **arguments)
    quantizer: Quantizer = build(node, path="quantizer")
    quantizer.load_state_dict(dict(tensors))
    return quantizer.eval()


@pytest.mark.parametrize("case", CASES)
def test_indices_are_those_that_were_recorded(recorded: dict[str, Tensor], case: str) -> None:
    name, arguments = CASES[case]
    quantizer = converted(name, state_of(recorded, case), **arguments)
    output = quantizer(recorded[f"{case}/z"])
    assert torch.equal(output.indices, recorded[f"{case}/indices"].long())
    assert len(output.indices.unique()) > 5
    torch.testing.assert_close(output.quantized, recorded[f"{case}/codes"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_bit_for_bit(recorded: dict[str, Tensor], case: str) -> None:
    name, arguments = CASES[case]
    state = state_of(recorded, case)
    node, tensors = from_vector_quantize_pytorch(name, state, **arguments)
    again = to_vector_quantize_pytorch(converted(name, state, **arguments))
    assert again[0] == name
    assert {key: again[1][key] for key in arguments} == arguments
    if case == "learned":  # the averages of codes that learn by gradient are never used
        state["_codebook.embed_avg"] = state["_codebook.embed"]
    assert digest(again[2]) == digest(state)
    assert from_vector_quantize_pytorch(name, again[2], **again[1])[0] == node
    assert digest(from_vector_quantize_pytorch(name, again[2], **again[1])[1]) == digest(tensors)


@pytest.mark.parametrize("case", CASES)
def test_shapes_are_enough(recorded: dict[str, Tensor], case: str) -> None:
    name, arguments = CASES[case]
    state = state_of(recorded, case)
    shapes = {key: tensor.to("meta") for key, tensor in state.items()}
    node, tensors = from_vector_quantize_pytorch(name, shapes, **arguments)
    expected, real = from_vector_quantize_pytorch(name, state, **arguments)
    assert node == expected
    assert {key: tensor.shape for key, tensor in tensors.items()} == {
        key: tensor.shape for key, tensor in real.items()
    }


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_package_itself(case: str) -> None:
    package = pytest.importorskip("vector_quantize_pytorch", reason="pip install vector-quantize-pytorch")
    torch.manual_seed(1)
    name, arguments = CASES[case]
    module = trained(name, arguments)
    quantizer = converted(name, module.state_dict(), **arguments)
    z = vectors(module)
    assert torch.equal(quantizer.encode(z), module(z)[1].long())
    kind, given, state = to_vector_quantize_pytorch(quantizer)
    again = getattr(package, kind)(**given)
    again.load_state_dict(dict(state))
    codes, indices = again.eval()(z)[:2]
    assert torch.equal(quantizer.encode(z), indices.long())
    torch.testing.assert_close(quantizer(z).quantized, codes, rtol=0, atol=2e-6)


def euclidean(**settings: Any) -> VectorQuantizer:
    return VectorQuantizer(codebook=EMACodebook(size=8, dim=4, init=NormalInit()), **settings)


OWN = {
    "averages": euclidean(estimator=RotationTrick()),
    "k-means": VectorQuantizer(codebook=EMACodebook(size=8, dim=4, decay=0.95)),
    "learned": BottleneckQuantizer(quantizer=VectorQuantizer(codebook=LearnedCodebook(size=8, dim=4)), dim=6),
    "residual": ResidualQuantizer(quantizers=[euclidean(), euclidean()]),
    "shared": ResidualQuantizer(quantizers=[euclidean()], depth=2),
    "one stage": ResidualQuantizer(quantizers=[euclidean()]),
    "heads": ProductQuantizer(quantizers=[euclidean()], groups=3),
    "separate heads": ProductQuantizer(quantizers=[euclidean(), euclidean()]),
    "levels": FiniteScalarQuantizer(levels=[5, 4, 3], eps=-1e-3),
    "bits": LookupFreeQuantizer(bits=5),
    "one bit": LookupFreeQuantizer(bits=1),
    "projected bits": BottleneckQuantizer(quantizer=LookupFreeQuantizer(bits=5), dim=5),
    "sphere": BinarySphericalQuantizer(bits=4, temperature=0.01, group_bits=4),
    "map": VectorQuantizer(codebook=ProjectedCodebook(size=8, dim=4), estimator=StraightThrough()),
}


@pytest.mark.parametrize("quantizer", OWN.values(), ids=OWN)
@torch.no_grad()
def test_own_quantizers_are_written(quantizer: Quantizer) -> None:
    name, arguments, state = to_vector_quantize_pytorch(quantizer)
    again = converted(name, dict(state), **arguments)
    assert digest(again.state_dict()) == digest(quantizer.state_dict())
    z = torch.randn(50, quantizer.codebook_dim)
    assert torch.equal(again.encode(z), quantizer.encode(z))
    try:
        import vector_quantize_pytorch as package
    except ImportError:
        return
    module = getattr(package, name)(**arguments)
    module.load_state_dict(dict(state))
    if name != "VectorQuantize" or module._codebook.initted:
        assert torch.equal(module.eval()(z[None])[1][0].long(), quantizer.encode(z))


def cosine() -> VectorQuantizer:
    return euclidean(distance=CosineDistance())


def with_bias() -> VectorQuantizer:
    quantizer = VectorQuantizer(codebook=ProjectedCodebook(size=8, dim=4))
    torch.nn.init.ones_(quantizer.codebook.bias)
    return quantizer


def averages(**settings: Any) -> VectorQuantizer:
    return VectorQuantizer(codebook=EMACodebook(size=8, dim=4, **settings))


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (cosine(), "expected codes of length 1, since they are compared by their cosine"),
        (
            with_bias(),
            "ProjectedCodebook for vector-quantize-pytorch: expected EuclideanDistance, no bottleneck and",
        ),
        (
            averages(revival=ReplaceUnusedCodes(patience=5)),
            "expected EMACodebook or LearnedCodebook without a revival",
        ),
        (averages(init=DataMomentsInit()), "expected initialised codes, or KMeansInit, got DataMomentsInit"),
        (VectorQuantizer(codebook=FrozenCodebook(size=8, dim=4)), "expected EMACodebook or LearnedCodebook"),
        (
            euclidean(regularisers=[OrthogonalRegulariser()]),
            "expected RotationTrick or StraightThrough and no",
        ),
        (
            ResidualQuantizer(quantizers=[euclidean()], depth=2, scales=[1.0, 0.5]),
            "expected neither scales nor a",
        ),
        (ResidualQuantizer(quantizers=[LookupFreeQuantizer(bits=4)], depth=2), "expected stages that are"),
        (
            ResidualQuantizer(quantizers=[averages(), averages(decay=0.5)]),
            "expected parts with equal settings",
        ),
        (FiniteScalarQuantizer(levels=[5, 4]), "expected eps=-0.001 and shift='atanh', got eps=0.001 and"),
        (LookupFreeQuantizer(bits=4, temperature=1.0), "expected temperature=0.01 and group_bits=4, got"),
        (
            BottleneckQuantizer(quantizer=euclidean(), dim=4),
            "expected linear maps between different numbers of",
        ),
        (
            ProductQuantizer(quantizers=[euclidean()], groups=2, dim=7),
            "expected VectorQuantizers, neither padded",
        ),
        (
            ProductQuantizer(quantizers=[LookupFreeQuantizer(bits=4)], groups=2),
            "expected VectorQuantizers, neither",
        ),
        (RadialQuantizer.example(), "expected one of VectorQuantizer, "),
    ],
)
def test_what_the_package_cannot_hold(quantizer: Quantizer, message: str) -> None:
    with pytest.raises(InteropError, match=re.escape(message)):
        to_vector_quantize_pytorch(quantizer)


@pytest.mark.parametrize(
    ("case", "changed", "message"),
    [
        ("fsq", {"levels": []}, "FSQ: expected levels of at least 3, which no tensor shows, got none"),
        ("fsq", {"levels": [8, 2]}, "FSQ: expected levels of at least 3"),
        ("fsq", {"preserve_symmetry": True}, "got 'preserve_symmetry'"),
        ("fsq_projected", {"dim": 9}, "FSQ: expected dim=10, as the tensors say, got 9"),
        (
            "fsq_projected",
            {"levels": [8, 5]},
            "expected tensors whose shapes agree, got others of project_in.bias, ",
        ),
        ("averages", {"use_cosine_sim": True}, "VectorQuantize: expected codes of length 1"),
        (
            "averages",
            {"learnable_codebook": True, "ema_update": True},
            "expected codes that are averages, or",
        ),
        ("averages", {"codebook_size": 16}, "expected codebook_size=32, as the tensors say, got 16"),
        (
            "separate_heads",
            {"heads": 2},
            "as many codebooks as heads=2 if they are separate, else one, got 3",
        ),
        (
            "heads",
            {"separate_codebook_per_head": True},
            "as many codebooks as heads=2 if they are separate, else one, got 1",
        ),
        ("heads", {"heads": 3}, "expected dim=18, as the tensors say, got 12"),
        (
            "heads",
            {"heads": 0},
            "as many codebooks as heads=0 if they are separate, else one, got 1",
        ),
        ("averages", {"decai": 0.9}, "got 'decai'; did you mean 'decay'?"),
        ("residual", {"shared_codebook": True}, "expected equal codebooks for shared_codebook=True"),
        ("lfq", {"codebook_size": 32}, "LFQ: expected codebook_size=64, as the tensors say, got 32"),
        ("lfq", {"has_projections": True}, "LFQ: expected has_projections=False"),
        ("fsq", {"levels": 8}, "FSQ: expected levels as the constructor takes it, got 8"),
        ("averages", {"decay": "0.9"}, "expected decay as the constructor takes it, got '0.9'"),
        (
            "averages",
            {"use_cosine_sim": None},
            "expected use_cosine_sim as the constructor takes it, got None",
        ),
        ("averages", {"dim": True}, "expected dim as the constructor takes it, got True"),
    ],
)
def test_arguments_that_do_not_fit(
    recorded: dict[str, Tensor], case: str, changed: dict[str, Any], message: str
) -> None:
    name, arguments = CASES[case]
    with pytest.raises(InteropError, match=re.escape(message)):
        from_vector_quantize_pytorch(name, state_of(recorded, case), **{**arguments, **changed})


def test_tensors_that_do_not_fit(recorded: dict[str, Tensor]) -> None:
    state = state_of(recorded, "projected")
    arguments = CASES["projected"][1]
    for change, message in (
        ({"project_out.bias": None}, "expected a tensor project_out.bias of 1 axes, got none"),
        (
            {"_codebook.embed_avg": torch.ones(32, 4)},
            "expected a tensor _codebook.embed_avg of 3 axes, got the",
        ),
        (
            {"_codebook.embed_avg": torch.ones(2, 32, 4)},
            "expected codes and averages of as many codebooks, got 1, 2",
        ),
        ({"_codebook.batch_mean": torch.zeros(1)}, r"got 1 with no counterpart \(_codebook.batch_mean\)"),
        ({"_codebook.initted": torch.tensor(False)}, "expected kmeans_init=True, since the codes are not"),
        ({"_codebook.cluster_size": torch.ones(1, 31)}, r"got others of quantizer.codebook.usage"),
    ):
        other = {key: tensor for key, tensor in (state | change).items() if tensor is not None}
        with pytest.raises(InteropError, match=message):
            from_vector_quantize_pytorch("VectorQuantize", other, **arguments)
    with pytest.raises(
        InteropError, match=r"expected one of VectorQuantize, .*, got 'RandomProjectionQuantizer'"
    ):
        from_vector_quantize_pytorch("RandomProjectionQuantizer", {})
    with pytest.raises(InteropError, match="SimVQ: expected a square linear map of the frozen codes"):
        from_vector_quantize_pytorch(
            "SimVQ", {"frozen_codebook": torch.zeros(8, 3), "code_transform.weight": torch.zeros(4, 3)}
        )


def test_a_module_that_awaits_its_first_batch() -> None:
    """Its codes are zeros, and both cluster the first batch."""
    state = {
        "_codebook.initted": torch.tensor([False]),
        "_codebook.cluster_size": torch.ones(1, 8),
        "_codebook.embed_avg": torch.zeros(1, 8, 4),
        "_codebook.embed": torch.zeros(1, 8, 4),
    }
    quantizer = converted("VectorQuantize", state, kmeans_init=True, use_cosine_sim=True).train()
    quantizer(torch.randn(100, 4))
    assert quantizer.codebook.initialised
    assert quantizer.codebook.weight.any()
