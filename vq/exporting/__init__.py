"""Tokenizers as files that other runtimes run: ONNX, TorchScript and exported programs of PyTorch."""

from vq.exporting.formats import FORMATS, ExportError
from vq.exporting.write import Export, Exported

__all__ = ["FORMATS", "Export", "ExportError", "Exported"]
