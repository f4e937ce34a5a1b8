"""Stores of tokens and of features on disk, and the loaders that read them."""
