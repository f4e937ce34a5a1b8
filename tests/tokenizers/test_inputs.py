"""What `encode` takes as images: the same indices from every clear input, one error for every ambiguous one."""

import re

import pytest
import torch
from torch import Tensor

from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.ops.images import to_signed_unit
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer, Tokenizer
from vq.tokenizers.inputs import ImageInputError

PIXELS = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tokenizer() -> Tokenizer:
    return ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8,), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[5, 5]),
        decoder=StridedCNNDecoder(widths=(8,), num_blocks=1),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_networks_of_any_precision_take_pixels_and_floats_of_any_other(
    tokenizer: Tokenizer, dtype: torch.dtype
) -> None:
    tokenizer.to(dtype)
    expected = tokenizer.encode(to_signed_unit(PIXELS).to(dtype))
    assert torch.equal(tokenizer.encode(PIXELS), expected)
    assert torch.equal(tokenizer.encode(to_signed_unit(PIXELS)), expected)
    assert tokenizer.encode(to_signed_unit(PIXELS).bfloat16()).shape == expected.shape


def test_values_a_little_outside_the_range_pass_as_they_are(tokenizer: Tokenizer) -> None:
    image = 1.4 * to_signed_unit(PIXELS)
    assert torch.equal(tokenizer.as_images(image), image)
    assert tokenizer.encode(image[:0]).shape[0] == 0


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (PIXELS.float(), "expected floats in [-1, 1], got 0 to 255; for pixels 0..255 pass uint8"),
        (torch.full((1, 3, 8, 8), torch.nan), "expected floats in [-1, 1], got nan to nan"),
        (-PIXELS.double(), "got -255 to -0"),
        (PIXELS.long(), "expected uint8 pixels 0..255 or floats in [-1, 1], got a tensor of torch.int64"),
        (PIXELS > 9, "got a tensor of torch.bool"),
        (PIXELS[0], "got (3, 8, 8); add the batch axis with image[None]"),
        (PIXELS.movedim(1, -1), "got (2, 8, 8, 3); the channels come before height and width"),
        (PIXELS[0].movedim(0, -1), "got (8, 8, 3); the channels come before"),
        (PIXELS[:, :1], "got (2, 1, 8, 8); repeat grey images"),
        (torch.zeros(2, 4, 8, 8), "got (2, 4, 8, 8); drop the transparency"),
        (torch.zeros(8, 8), "expected the shape (batch, 3, height, width), got (8, 8)"),
    ],
)
def test_what_is_ambiguous_is_refused(tokenizer: Tokenizer, image: Tensor, words: str) -> None:
    with pytest.raises(ImageInputError, match=re.escape(words)):
        tokenizer.encode(image)


@pytest.mark.parametrize(
    ("channels", "shape", "words"),
    [
        (
            1,
            (2, 3, 8, 8),
            "expected the shape (batch, 1, height, width), got (2, 3, 8, 8); make them grey with",
        ),
        (1, (1, 8, 8), "got (1, 8, 8); add the batch axis with image[None]"),
        (4, (2, 3, 8, 8), "got (2, 3, 8, 8); add an opaque fourth channel"),
        (6, (2, 8, 8, 6), "got (2, 8, 8, 6); the channels come before height and width"),
        (
            6,
            (2, 3, 8, 8),
            "expected the shape (batch, 6, height, width), got (2, 3, 8, 8); this tokenizer was made",
        ),
        (6, (6, 8), "got (6, 8); stack images"),
    ],
)
def test_other_channels_have_hints_of_their_own(channels: int, shape: tuple[int, ...], words: str) -> None:
    network = {"widths": (8,), "num_blocks": 1, "image_channels": channels}
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(**network),
        quantizer=FiniteScalarQuantizer(levels=[5, 5]),
        decoder=StridedCNNDecoder(**network),
    )
    with pytest.raises(ImageInputError, match=re.escape(words)):
        tokenizer.encode(torch.zeros(shape))
