"""The work of the commands: train, score checkpoints, tokenize, generate, compare, collect statistics."""
