"""Training steps: which loss moves which parameters, with which optimizer, schedule and weight."""
