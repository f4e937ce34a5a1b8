"""Encoders and decoders made of convolutions."""
