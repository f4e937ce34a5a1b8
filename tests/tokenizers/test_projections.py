"""The convolutions beside the quantizer, and the pixel values that the networks take."""

import pytest
import torch
from torch import Tensor, nn

from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def tokenizer(*, channels: int = 2, **arguments: object) -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(channels,), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[5, 5]),
        decoder=StridedCNNDecoder(widths=(channels,), num_blocks=1),
        **arguments,
    ).eval()


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_kernel_is_that_of_both_convolutions(kernel: int) -> None:
    made = tokenizer(channels=6, projection_kernel=kernel)
    assert made.pre_quant.weight.shape == (2, 6, kernel, kernel)
    assert made.post_quant.weight.shape == (6, 2, kernel, kernel)
    assert made(IMAGES).reconstruction.shape == IMAGES.shape
    assert made.decode(made.encode(IMAGES)).shape == IMAGES.shape


def test_no_convolutions() -> None:
    made = tokenizer(projection_kernel=None)
    assert not [name for name in made.state_dict() if "_quant." in name]
    assert torch.equal(made.latent(IMAGES), made.encoder(IMAGES).movedim(1, -1))
    made.freeze(["encoder", "pre_quant", "quantizer"])
    assert made.encode(IMAGES).shape[0] == 2


@torch.no_grad()
def test_networks_of_another_range() -> None:
    seen: list[Tensor] = []

    def remember(module: nn.Module, images: tuple[Tensor]) -> None:
        seen.append(images[0])

    usual, unit = tokenizer(), tokenizer(value_range=(0, 1))
    unit.encoder.register_forward_pre_hook(remember)
    unit.decoder.register_forward_hook(lambda module, given, made: made.clamp(0, 1))
    reconstruction = unit(IMAGES).reconstruction
    # Halving is exact; adding 1 first rounds by at most half an ulp of 2.
    torch.testing.assert_close(seen[0], (IMAGES + 1) / 2, rtol=0, atol=0)
    assert reconstruction.min() >= -1
    assert reconstruction.max() <= 1
    expected = (
        usual.decoder(usual.post_quant(unit(IMAGES).quantize.quantized.movedim(-1, 1))).clamp(0, 1) * 2 - 1
    )
    torch.testing.assert_close(reconstruction, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(unit.bypass(IMAGES).clamp(-1, 1), unit.bypass(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"projection_kernel": 2}, "expected projection_kernel to be odd, got 2"),
        ({"projection_kernel": None, "channels": 6}, "since projection_kernel is None, got 6 and 2"),
        ({"value_range": (1, 1)}, r"value_range to be the values of black and white, got \[1, 1\]"),
        ({"value_range": (0, 1, 2)}, "value_range to be the values of black and white"),
    ],
)
def test_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tokenizer(**arguments)
