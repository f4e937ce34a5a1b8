"""Quantizers that are made of other quantizers: residual, product, multi-scale, and changes of the input around one."""
