"""Generators: networks that propose the next indices, given a class and the indices so far."""
