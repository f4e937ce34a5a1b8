"""Exact arithmetic: device constants, integers, the precision of a computation, and masked reductions."""
