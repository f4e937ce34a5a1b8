"""How numbers are kept exact: device constants, integers, precision of a computation, reductions."""
