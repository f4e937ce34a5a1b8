"""Codebooks: tables of code vectors, and how they are learned."""
