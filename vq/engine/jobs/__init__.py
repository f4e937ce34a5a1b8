"""What the commands do over whole sets: tokenize, generate, score checkpoints, compare, collect statistics."""
