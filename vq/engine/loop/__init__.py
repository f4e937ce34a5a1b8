"""The training loop over time: steps, logging, checkpoints, resuming, and how a run starts and stops."""
