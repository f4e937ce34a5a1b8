"""The linear probe and its features, against plain float64 versions of them."""

from typing import Any

import pytest
import torch
from commands import TINY

from vq import config
from vq.engine import assembly
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.probes import LinearProbe, PooledCodes, PooledPixels
from vq.quantizers import FiniteScalarQuantizer, ResidualQuantizer
from vq.tokenizers import ImageTokenizer


@pytest.fixture
def tokenizer() -> Any:
    return assembly.make_tokenizer(
        config.load(TINY).to_dict(), seed=1
    ).eval()  # 16 px: 8 x 8 codes of 4 numbers


def images(count: int = 5, size: int = 16) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), generator=draws, dtype=torch.uint8)


def test_pooled_codes_are_the_mean_of_the_chosen_codes(tokenizer: Any) -> None:
    features = PooledCodes(tokenizer=tokenizer)
    indices = tokenizer.encode(images())
    codes = tokenizer.quantizer.codebook.codes.detach()
    expected = torch.stack([codes[one.flatten()].double().mean(dim=0) for one in indices])
    assert features.dim == 4
    torch.testing.assert_close(features(images()).double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(features(images()), features.of_indices(indices.to(torch.int16)))


def test_stacked_indices_are_pooled_as_the_sum_of_their_codes() -> None:
    network: dict[str, Any] = {"widths": (32, 32), "num_blocks": 1}
    stages = [FiniteScalarQuantizer(levels=[3, 3]) for _ in range(2)]
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(**network),
        quantizer=ResidualQuantizer(quantizers=stages),
        decoder=StridedCNNDecoder(**network),
    )
    features = PooledCodes(tokenizer=tokenizer)
    assert features.dim == 2
    indices = tokenizer.encode(images())
    expected = tokenizer.quantizer.decode(indices).mean(dim=(1, 2))
    torch.testing.assert_close(features.of_indices(indices), expected)


def test_pooled_pixels_are_the_mean_patch() -> None:
    image = images(size=6)
    features = PooledPixels(patch_size=3)
    unit = image.double() / 127.5 - 1
    patches = [unit[:, :, y : y + 3, x : x + 3] for y in (0, 3) for x in (0, 3)]
    expected = (
        torch.stack(patches).mean(dim=0).permute(0, 2, 3, 1).flatten(1)
    )  # the colours of a pixel side by side
    assert features.dim == 27
    torch.testing.assert_close(features(image).double(), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="PooledPixels: needs images, got indices"):
        features.of_indices(torch.zeros(1, 2, 2).long())


def test_the_probe_is_a_normalization_and_a_linear_layer() -> None:
    torch.manual_seed(0)
    probe = LinearProbe(features=PooledPixels(patch_size=1), num_classes=4).double().train()
    x = torch.randn(7, 3).double() * 5 + 2
    weight, bias = (p.detach() for p in (probe.linear.weight, probe.linear.bias))
    mean, variance = x.mean(dim=0), x.var(dim=0, correction=0)
    expected = (x - mean) / (variance + 1e-6).sqrt() @ weight.T + bias
    torch.testing.assert_close(probe(x).detach(), expected, atol=1e-12, rtol=0)
    # One batch has moved the statistics from 0 and 1 by a tenth of the way.
    running = 0.9 + 0.1 * x.var(dim=0, correction=1)
    expected = (x - 0.1 * mean) / (running + 1e-6).sqrt() @ weight.T + bias
    torch.testing.assert_close(probe.eval()(x).detach(), expected, atol=1e-12, rtol=0)
    assert set(dict(probe.named_parameters())) == {"linear.weight", "linear.bias"}


def test_the_tokenizer_is_used_and_is_no_part_of_the_probe(tokenizer: Any) -> None:
    probe = LinearProbe(features=PooledCodes(tokenizer=tokenizer.train()), num_classes=3).train()
    assert not tokenizer.training
    assert not any(p.requires_grad for p in tokenizer.parameters())
    names = {
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
        "linear.weight",
        "linear.bias",
    }
    assert set(probe.state_dict()) == names
    assert {id(p) for p in probe.parameters()}.isdisjoint({id(p) for p in tokenizer.parameters()})
    assert probe.classify(images()).shape == (5, 3)
    assert tokenizer.dtype == torch.float32
    assert probe.double().classify(images()).dtype == torch.float64
    assert tokenizer.dtype == torch.float64


def test_what_cannot_be_a_probe_is_refused() -> None:
    with pytest.raises(ValueError, match="num_classes: expected at least 2, got 1"):
        LinearProbe(features=PooledPixels(patch_size=1), num_classes=1)
    given: Any = PooledCodes
    with pytest.raises(
        ValueError, match=r"features: need the tokenizer .* give the page a section tokenizer"
    ):
        LinearProbe(features=given, num_classes=2)
