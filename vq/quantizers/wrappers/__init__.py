"""Quantizers that apply other quantizers, such as residual and product quantization."""
