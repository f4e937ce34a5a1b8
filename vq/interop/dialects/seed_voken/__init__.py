"""The names of weights in SEED-Voken, which publishes IBQ and Open-MAGVIT2."""
