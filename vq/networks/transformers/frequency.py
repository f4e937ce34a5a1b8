"""An encoder and decoder whose features are frequencies, ordered from low to high (FrequencyTransformer).

Here the network sees the image, and the spectrum is that of the network's features. To give a network the spectrum of
the image itself, use `ViTEncoder` and `ViTDecoder` with the patches of `vq.layers.frequency_patches`.
"""

from typing import cast

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.networks.sizes import declared_size, image_channels_of
from vq.ops.dct import dct2, idct2, inverse_permutation, zigzag
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class FrequencyEncoder(nn.Module):
    """Replaces another encoder's features by their normalized spectrum (FrequencyTransformer v1).

    The features go through a discrete cosine transform over the grid and a layer norm over the channels, and are put
    in zigzag order. In raster order they then run from low to high frequencies, so that a prior can generate the low
    frequencies first.

    Source: development log of vector_quants, FreqTransformer v1.
    Differs from the source: any encoder can be used, not only a linear layer over patches.

    Args:
        encoder: The encoder whose features are transformed.

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
        self.out_channels = declared_size(encoder, "out_channels")
        self.downsample_factor = declared_size(encoder, "downsample_factor")
        self.image_channels = image_channels_of(encoder)
        self.norm = nn.LayerNorm(self.out_channels)

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1] as the spectrum of their features, in zigzag order.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        spectrum = dct2(self.encoder(image))
        rows, columns = spectrum.shape[2:]
        tokens = self.norm(rearrange(spectrum, "b c h w -> b (h w) c"))
        ordered = tokens[:, zigzag(rows, columns, image.device)]
        return rearrange(ordered, "b (h w) c -> b c h w", h=rows)


@DECODERS.register_module()
class FrequencyDecoder(nn.Module):
    """Transforms a spectrum in zigzag order back to features, which another decoder decodes to an image.

    The decoder inverts `FrequencyEncoder`, except for the scale of each vector, which the encoder's norm removes.

    Source: development log of vector_quants, FreqTransformer v1.
    Differs from the source: any decoder can be used, not only a linear layer over patches.

    Args:
        decoder: The decoder of the features.
    """

    def __init__(self, *, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.in_channels = declared_size(decoder, "in_channels")
        self.downsample_factor = declared_size(decoder, "downsample_factor")
        self.image_channels = image_channels_of(decoder)

    @property
    def last_layer(self) -> Float[Tensor, "*shape"]:
        """The weight of the decoder's last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return cast("Tensor", self.decoder.last_layer)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b channels H W"]:
        """Decodes a spectrum in zigzag order to images; the size is multiplied by `downsample_factor`."""
        rows, columns = features.shape[2:]
        order = inverse_permutation(zigzag(rows, columns, features.device))
        spectrum = features.flatten(2)[:, :, order].reshape(features.shape)
        return self.decoder(idct2(spectrum))
