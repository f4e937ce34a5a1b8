"""The training loop: steps, logging, checkpoints, resuming, and how a run starts and stops."""
