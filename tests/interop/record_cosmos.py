"""Records the outputs of a Cosmos tokenizer in cosmos.npz, and the shapes of the published weights.

    git clone https://github.com/NVIDIA/Cosmos-Tokenizer
    PYTHONPATH=Cosmos-Tokenizer python tests/interop/record_cosmos.py  # it needs loguru

Recorded at commit 3584ae7. `test_cosmos.py` compares with the arrays; Cosmos is not needed for that.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from cosmos_tokenizer.networks.configs import discrete_image
from cosmos_tokenizer.networks.discrete_image import DiscreteImageTokenizer
from foreign_models import fill
from recordings import pixels, record, write_shapes

from vq.torchscript import read_torchscript


def made(**changes: object) -> DiscreteImageTokenizer:
    return DiscreteImageTokenizer(**{**discrete_image, "dtype": torch.float32, **changes}).eval()


def published_form(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model in a TorchScript archive, as the published files are."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "autoencoder.jit"
        torch.jit.trace(model, pixels(64), check_trace=False).save(file)
        state = read_torchscript(file)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    return state


@torch.no_grad()
def main() -> None:
    # As in DI8x8, there is one halving less than the number of multipliers allows for.
    model = made(channels_mult=[1, 2, 2], num_res_blocks=1, z_channels=16, spatial_compression=8)
    fill(model.named_parameters())
    latent = model.quant_conv(model.encoder(pixels(64)))
    indices, codes, _ = model.quantizer(latent)
    record("cosmos", published_form(model), latent=latent, indices=indices.long(), image=model.decode(codes))
    published = {f"di{factor}x{factor}": made(spatial_compression=factor) for factor in (8, 16)}
    write_shapes("cosmos", {name: published_form(model) for name, model in published.items()})


if __name__ == "__main__":
    main()
