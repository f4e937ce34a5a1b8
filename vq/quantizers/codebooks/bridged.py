"""The codebook of FVQ: a transformer over groups of codes moves all codes together (VQBridge)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from vq.layers.transformer import Transformer, grid_places, start_linear_layers
from vq.ops.numerics.reductions import mean_square
from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.parts.initialization import Initialization, NormalInit
from vq.registry import CODEBOOKS

FIRST_STEP = 1e-3
"""Standard deviation of the last layer's first weights in the residual form, in which the codes begin as `init`."""


@CODEBOOKS.register_module()
class BridgedCodebook(Codebook):
    r"""Maps learned coefficients to the codes by a transformer between groups of codes (VQBridge).

    The coefficients are cut into groups of consecutive codes. A linear layer and a layer norm compress each group to
    one token, transformer blocks and a layer norm process the tokens, and a linear layer expands each token to the
    codes of its group. The loss $|sg(z) - e|^2$ moves the transformer and the coefficients, and with them also the
    codes that no vector chose. So there is nothing to revive.

    The codes are computed in every forward and every `decode`. After training `vectors` alone is needed: stored in a
    file, it is a `FrozenCodebook` with `FileInit`.

    Source: Chang et al. 2025 (FVQ), https://arxiv.org/abs/2509.10140, section 3 (VQBridge).
    Differs from the source: in the residual form, which is the default, the transformer's result is added to the
        coefficients and is nearly 0 at first. So `init` determines the first codes, as it does for any other
        codebook. With `is_residual=False` the codes are the result alone, as published.

    Args:
        size: Number of codes.
        dim: Length of each code.
        groups: Number of groups of consecutive codes, which are the tokens; a divisor of `size`.
        width: Number of channels of the tokens.
        depth: Number of transformer blocks.
        num_heads: Number of heads of the attention; a divisor of `width`.
        init: How the coefficients are initialised; None is Gaussian with the standard deviation dim^-0.5.
        is_residual: Whether the coefficients are added to the result.

    Raises:
        ValueError: If `groups` does not divide `size`, or `init` needs data in the form that is not residual.
    """

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        groups: int = 8,
        width: int = 64,
        depth: int = 2,
        num_heads: int = 4,
        init: Initialization | None = None,
        is_residual: bool = True,
    ) -> None:
        super().__init__(size=size, dim=dim, init=init or NormalInit(), revival=None)
        if groups < 1 or size % groups:
            raise ValueError(f"BridgedCodebook: expected groups that divide the {size} codes, got {groups}")
        if self.init.needs_data and not is_residual:
            raise ValueError(
                f"BridgedCodebook: expected an init that needs no data with is_residual=False, got "
                f"{type(self.init).__name__}; the first codes are then those of a random transformer"
            )
        self.groups, self.is_residual = groups, is_residual
        self.weight = nn.Parameter(self.init.draw(size, dim))
        self.compress = nn.Linear(size // groups * dim, width)
        self.norm = nn.LayerNorm(width)
        self.transformer = Transformer(width=width, depth=depth, num_heads=num_heads)
        self.expand = nn.Linear(width, size // groups * dim)
        start_linear_layers(self.compress)
        nn.init.normal_(self.expand.weight, std=FIRST_STEP if is_residual else (width * dim) ** -0.5)
        nn.init.zeros_(self.expand.bias)

    @classmethod
    def example(cls) -> "BridgedCodebook":
        """Returns 16 codes of length 4 in four groups."""
        return cls(size=16, dim=4, groups=4, width=8, depth=1, num_heads=2)

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The mapped coefficients; computed at each access."""
        tokens = self.norm(self.compress(self.weight.view(1, self.groups, -1)))
        grid = (1, self.groups)
        tokens = self.transformer(tokens, places=grid_places(grid, tokens.device), grid=grid)
        result: Tensor = self.expand(tokens).view(self.size, self.dim)
        return self.weight + result if self.is_residual else result

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Computes the mean squared difference of codes and vectors, with a gradient to the map and its input."""
        return mean_square(code, z.detach(), mask)

    def _searched(self) -> None:
        return None  # only the optimizer moves the codes

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites the coefficients and sets the transformer's result to 0.

        Raises:
            ValueError: If the codes are the result alone.
        """
        if not self.is_residual:
            raise ValueError(
                "BridgedCodebook: expected is_residual=True to set the codes, got False; codes that are the result "
                "of a transformer cannot be set"
            )
        # Without a revival all codes are set at once, so the map can be reset.
        self.weight.copy_(vectors)
        self.expand.weight.zero_()
        self.expand.bias.zero_()
