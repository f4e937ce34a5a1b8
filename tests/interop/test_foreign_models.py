"""The same weights give the same features, indices and images in the original project and in this one."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_models import CODES, MULTIPLIERS, WIDTH, Taming, diffusers_model, fill, image
from torch import Tensor, nn

from vq.interop import from_dialect, to_diffusers, to_llamagen, to_taming
from vq.networks import CNNDecoder, CNNEncoder
from vq.quantizers import CosineDistance, EuclideanDistance, LearnedCodebook, VectorQuantizer
from vq.tokenizers import ImageTokenizer

# About forty layers in a row, each of which adds up to 600 products in float32 and rounds its outputs (of order 1) by
# some 1e-6 where sums are taken in another order; a tensor in a wrong place moves them by 0.1 and more.
TOLERANCE = {"rtol": 0, "atol": 1e-4}


def ours(*, num_blocks: int, dim: int, cosine: bool = False) -> ImageTokenizer:
    network = {"base_width": WIDTH, "multipliers": MULTIPLIERS, "num_blocks": num_blocks}
    return ImageTokenizer(
        encoder=CNNEncoder(out_channels=16, **network),
        quantizer=VectorQuantizer(
            codebook=LearnedCodebook(size=CODES, dim=dim),
            distance=CosineDistance() if cosine else EuclideanDistance(),
        ),
        decoder=CNNDecoder(in_channels=16, **network),
    ).eval()


def needs(package: str, install: str) -> pytest.MarkDecorator:
    reason = f"pip install {install}"
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=reason)


def same_tensors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@torch.no_grad()
def compare(theirs: nn.Module, tokenizer: ImageTokenizer, indices: Tensor, painted: Tensor) -> None:
    features = theirs.encoder(image())
    assert features.std() > 0.1  # of order 1, so that the tolerance is meaningful
    torch.testing.assert_close(tokenizer.encoder(image()), features, **TOLERANCE)
    assert torch.equal(tokenizer.encode(image()), indices)
    assert len(indices.unique()) > 5
    found = tokenizer(image()).reconstruction
    torch.testing.assert_close(found, painted, **TOLERANCE)


@needs("taming", "--no-deps taming-transformers-rom1504")
@pytest.mark.parametrize("num_blocks", [1, 2])
@torch.no_grad()
def test_taming(num_blocks: int) -> None:
    theirs, tokenizer = Taming(num_blocks=num_blocks, dim=8).eval(), ours(num_blocks=num_blocks, dim=8)
    fill(theirs.named_parameters())
    from_dialect(tokenizer, theirs.state_dict(), "taming")
    codes, _, (_, _, indices) = theirs.quantize(theirs.quant_conv(theirs.encoder(image())))
    compare(theirs, tokenizer, indices.view(2, 8, 8), theirs.decoder(theirs.post_quant_conv(codes)))
    same_tensors(to_taming(tokenizer.state_dict()), theirs.state_dict())


@needs("diffusers", "diffusers")
@pytest.mark.parametrize("num_blocks", [1, 2])
@torch.no_grad()
def test_diffusers(num_blocks: int) -> None:
    theirs, tokenizer = (
        diffusers_model(num_blocks=num_blocks, dim=8).eval(),
        ours(num_blocks=num_blocks, dim=8),
    )
    fill(theirs.named_parameters())
    from_dialect(tokenizer, theirs.state_dict(), "diffusers")
    indices = theirs.quantize(theirs.encode(image()).latents)[2][2]
    compare(theirs, tokenizer, indices.view(2, 8, 8), theirs(image()).sample)
    same_tensors(to_diffusers(tokenizer.state_dict()), theirs.state_dict())


@torch.no_grad()
def test_llamagen_as_recorded() -> None:
    with np.load(Path(__file__).with_name("llamagen.npz")) as file:
        recorded = {name: file[name] for name in file.files}
    shapes = [[int(n) for n in str(shape).split()] for shape in recorded["shapes"]]
    state = dict(zip(map(str, recorded["names"]), map(torch.empty, shapes), strict=True))
    fill(state.items())
    tokenizer = ours(num_blocks=2, dim=8, cosine=True)
    from_dialect(tokenizer, state, "llamagen")
    latent = tokenizer.pre_quant(tokenizer.encoder(image()))
    torch.testing.assert_close(latent, torch.from_numpy(recorded["latent"]), **TOLERANCE)
    indices = tokenizer.encode(image())
    assert torch.equal(indices, torch.from_numpy(recorded["indices"]))
    painted = torch.from_numpy(recorded["image"])
    torch.testing.assert_close(tokenizer(image()).reconstruction, painted, **TOLERANCE)
    del state["quantize.codebook_used"]
    same_tensors(to_llamagen(tokenizer.state_dict()), state)
