"""Autoregressive generation with causal convolutions (gated PixelCNN)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vq.generators.base import Generator, GeneratorOutput, generator_output
from vq.generators.errors import GeneratorError
from vq.generators.sampling import Sampler, uniform_numbers
from vq.registry import GENERATORS


class GatedLayer(nn.Module):
    """One layer of the vertical stack (rows above) and the horizontal stack (positions to the left in the same row).

    The kernels are cropped to the positions that they may see, instead of masked. The first layer excludes the
    current row (vertical) and the current position (horizontal). Later layers include them, because the features
    there no longer depend on the current index.

    Args:
        width: Channels.
        kernel_size: An odd number.
        is_first: Whether the input is the embedded indices.
        num_classes: Rows of the class embedding table.
    """

    def __init__(self, *, width: int, kernel_size: int, is_first: bool, num_classes: int) -> None:
        super().__init__()
        self.reach, self.is_first = kernel_size // 2, is_first
        own = 0 if is_first else 1
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + own, kernel_size))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.reach + own))
        self.across = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.classes = nn.Embedding(num_classes, 2 * width)

    def forward(
        self, above: Float[Tensor, "b c h w"], left: Float[Tensor, "b c h w"], label: Int64[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Applies the layer; takes and returns the features of the vertical and of the horizontal stack."""
        height, width = above.shape[2:]
        condition = self.classes(label)[:, :, None, None]
        padded = F.pad(above, (self.reach, self.reach, self.reach, 0))
        vertical = self.vertical(padded)[:, :, :height]
        horizontal = self.horizontal(F.pad(left, (self.reach, 0)))[:, :, :, :width]
        found = self.out(_gated(horizontal + self.across(vertical) + condition))
        return _gated(vertical + condition), found if self.is_first else left + found


def _gated(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, dim=1)
    return torch.tanh(value) * torch.sigmoid(gate)


@GENERATORS.register_module()
class PixelCNNGenerator(Generator):
    """Predicts each index from the class and the indices above and to the left (gated PixelCNN).

    Source: van den Oord et al. 2016, https://arxiv.org/abs/1606.05328, section 2 and figure 2; as a prior over
        indices: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 4.
    Differs from the source: indices are embedded by a table; there are no skip connections from every layer.

    Args:
        vocabulary_size: The number of codes.
        num_classes: The number of classes.
        grid: (rows, columns).
        width: Channels.
        depth: The number of gated layers after the first, whose kernel size is 7.
        kernel_size: The kernel size of those layers; an odd number.
        class_dropout: The probability in [0, 1] of training without the class, which guidance needs.

    Raises:
        ValueError: If the grid does not have two axes, or a number is out of range.

    Example:
        >>> generator = PixelCNNGenerator(vocabulary_size=8, num_classes=3, grid=(2, 3), width=8, depth=1)
        >>> generator.generate(torch.tensor([0, 2]), seeds=torch.tensor([0, 1])).shape
        torch.Size([2, 2, 3])
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        num_classes: int,
        grid: Sequence[int],
        width: int = 64,
        depth: int = 15,
        kernel_size: int = 3,
        class_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            vocabulary_size=vocabulary_size, num_classes=num_classes, grid=grid, class_dropout=class_dropout
        )
        if len(grid) != 2 or width < 1 or depth < 1 or kernel_size < 3 or kernel_size % 2 == 0:
            raise GeneratorError(
                f"PixelCNNGenerator: expected a grid (rows, columns), width and depth of at least 1 and an odd "
                f"kernel_size of at least 3, got {tuple(grid)}, {width}, {depth} and {kernel_size}"
            )
        self.table = nn.Embedding(vocabulary_size, width)
        rows = num_classes + 1
        self.first = GatedLayer(width=width, kernel_size=7, is_first=True, num_classes=rows)
        self.layers = nn.ModuleList(
            GatedLayer(width=width, kernel_size=kernel_size, is_first=False, num_classes=rows)
            for _ in range(depth)
        )
        self.exit = nn.Sequential(nn.ReLU(), nn.Conv2d(width, 4 * width, 1), nn.ReLU())
        self.logits = nn.Conv2d(4 * width, vocabulary_size, 1)

    def propose(self, indices: Int64[Tensor, "b l q"], label: Int64[Tensor, "b"]) -> GeneratorOutput:
        """Predicts all indices in one pass."""
        logits = self._logits(indices[:, :, 0].reshape(-1, *self.grid), label)
        return generator_output(logits.flatten(2).transpose(1, 2)[:, :, None], indices)

    def draw(
        self,
        label: Int64[Tensor, "rows"],
        sampler: Sampler,
        seeds: Int64[Tensor, "b"],
        given: Int64[Tensor, "b l q"],
    ) -> Int64[Tensor, "b l q"]:
        """Samples the indices in raster order; each one takes a pass over its row and the rows above."""
        columns = self.grid[1]
        uniform = uniform_numbers(seeds, self.num_positions)
        indices = given[:, :, 0].clone()
        for place in range(self.num_positions):
            row, column = divmod(place, columns)
            seen = indices[:, : (row + 1) * columns].clamp_min(0).reshape(-1, row + 1, columns)
            logits = self._logits(sampler.rows(seen), label)[:, :, row, column]
            guided = sampler.guided(logits, place / self.num_positions)
            drawn = sampler.pick(guided, uniform[:, place], place=place)
            indices[:, place] = drawn.where(indices[:, place] < 0, indices[:, place])
        return indices[:, :, None]

    def _logits(
        self, indices: Int64[Tensor, "b rows columns"], label: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b v rows columns"]:
        x = self.table(indices).movedim(-1, 1)
        above, left = self.first(x, x, label)
        for layer in self.layers:
            above, left = layer(above, left, label)
        logits: Tensor = self.logits(self.exit(left))
        return logits
