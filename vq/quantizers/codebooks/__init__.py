"""Codebooks: tables of code vectors, and how they learn."""
