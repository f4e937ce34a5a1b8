"""The modules of vector-quantize-pytorch as quantizers of this project, and back.

A state dict of that package does not show everything: whether codes are compared by their cosine, say, or the levels of
FSQ. So a module is described by the name of its class, the arguments of its constructor and its state dict.
"""

from vq.interop.vector_quantize_pytorch.reading import from_vector_quantize_pytorch
from vq.interop.vector_quantize_pytorch.writing import to_vector_quantize_pytorch

__all__ = ["from_vector_quantize_pytorch", "to_vector_quantize_pytorch"]
