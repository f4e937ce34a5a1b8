"""Encoders, decoders and frozen feature networks."""

from vq.networks.cnn import CNNDecoder, CNNEncoder

__all__ = ["CNNDecoder", "CNNEncoder"]
