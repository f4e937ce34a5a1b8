"""Records what modules of vector-quantize-pytorch compute, in vector_quantize_pytorch.npz beside this file.

    pip install vector-quantize-pytorch && python tests/interop/record_vector_quantize_pytorch.py

Recorded with version 1.32.0. `test_vector_quantize_pytorch.py` compares with the arrays; the package is not needed.
"""

from pathlib import Path

import numpy as np
import torch
from foreign_quantizers import CASES, trained, vectors


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    arrays = {}
    for case, (name, arguments) in CASES.items():
        module = trained(name, arguments)
        z = vectors(module)
        codes, indices = module(z)[:2]
        arrays |= {f"{case}/z": z[0], f"{case}/codes": codes[0], f"{case}/indices": indices[0]}
        arrays |= {f"{case}/state/{key}": tensor for key, tensor in module.state_dict().items()}
    np.savez_compressed(
        Path(__file__).with_name("vector_quantize_pytorch.npz"),
        **{key: array.detach().numpy() for key, array in arrays.items()},
    )


if __name__ == "__main__":
    main()
