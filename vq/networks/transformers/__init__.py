"""Encoders and decoders made of transformers."""
