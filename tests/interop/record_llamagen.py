"""Records the outputs of LlamaGen's tokenizer in llamagen.npz, next to this file.

    git clone https://github.com/FoundationVision/LlamaGen
    PYTHONPATH=LlamaGen/tokenizer/tokenizer_image python tests/interop/record_llamagen.py

Recorded at commit ce98ec4. `test_foreign_models.py` compares with the arrays; LlamaGen is not needed for that.
"""

from pathlib import Path

import numpy as np
import torch
from foreign_models import CODES, MULTIPLIERS, fill, image
from vq_model import ModelArgs, VQModel


def main() -> None:
    model = VQModel(
        ModelArgs(
            codebook_size=CODES,
            encoder_ch_mult=list(MULTIPLIERS),
            decoder_ch_mult=list(MULTIPLIERS),
            z_channels=16,
        )
    ).eval()
    fill(model.named_parameters())
    with torch.no_grad():
        latent = model.quant_conv(model.encoder(image()))
        indices = model.quantize(latent)[2][2].view(2, 8, 8)
        painted = model.decode_code(indices.flatten(), (2, 8, 8, 8))
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    np.savez_compressed(
        Path(__file__).with_name("llamagen.npz"),
        latent=latent.numpy(),
        indices=indices.numpy(),
        image=painted.numpy(),
        names=np.array(list(shapes)),
        shapes=np.array([" ".join(map(str, shape)) for shape in shapes.values()]),
    )


if __name__ == "__main__":
    main()
