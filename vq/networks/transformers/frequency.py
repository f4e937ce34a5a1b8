"""An encoder and decoder between which the features are frequencies, from low to high (FrequencyTransformer).

Frequencies enter in two places. As patches (`vq.layers.frequency_patches`), the network sees the
spectrum of the image: give them to `ViTEncoder` and `ViTDecoder`. Here the network sees the image, and the
spectrum is that of its features.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.ops.dct import dct2, idct2, inverse_permutation, zigzag
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class FrequencyEncoder(nn.Module):
    """Turns another encoder's features into their spectrum, in normalized vectors (FrequencyTransformer v1).

    Discrete cosine transform over the grid, layer norm over the channels, zigzag: row by row, the features
    run from low to high frequency, the order in which a prior may write them.

    Source: development log of vector_quants, FreqTransformer v1.
    Differs from the source: any encoder, not only a linear layer over patches.

    Args:
        encoder: Its features are transformed.

    Example:
        >>> import torch
        >>> from vq.networks import StridedCNNEncoder
        >>> encoder = FrequencyEncoder(encoder=StridedCNNEncoder(widths=(8, 16)))
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 16, 8, 12])
    """

    def __init__(self, *, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_channels = int(encoder.out_channels)  # type: ignore[arg-type]
        self.downsample_factor = int(encoder.downsample_factor)  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(self.out_channels)

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """Images in [-1, 1] to the spectrum of their features, in zigzag order.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        spectrum = dct2(self.encoder(image))
        rows, columns = spectrum.shape[2:]
        tokens = self.norm(rearrange(spectrum, "b c h w -> b (h w) c"))
        ordered = tokens[:, zigzag(rows, columns, image.device)]
        features: Tensor = rearrange(ordered, "b (h w) c -> b c h w", h=rows)
        return features


@DECODERS.register_module()
class FrequencyDecoder(nn.Module):
    """Turns a spectrum in zigzag order back into features, from which another decoder paints the image.

    The mirror image of `FrequencyEncoder`, but for the scale of each vector, which the norm there took away.

    Source: see `FrequencyEncoder`.
    Differs from the source: see `FrequencyEncoder`.

    Args:
        decoder: Paints the image from the features.
    """

    def __init__(self, *, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.in_channels = int(decoder.in_channels)  # type: ignore[arg-type]
        self.downsample_factor = int(decoder.downsample_factor)  # type: ignore[arg-type]

    @property
    def last_layer(self) -> Tensor:
        """The parameter that paints the pixels; an adaptive adversarial weight compares gradients there."""
        weight: Tensor = self.decoder.last_layer  # type: ignore[assignment]
        return weight

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """A spectrum in zigzag order to images of `downsample_factor` times its size."""
        rows, columns = features.shape[2:]
        order = inverse_permutation(zigzag(rows, columns, features.device))
        spectrum = features.flatten(2)[:, :, order].reshape(features.shape)
        image: Tensor = self.decoder(idct2(spectrum))
        return image
