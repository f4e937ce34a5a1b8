"""The published models, one file per family."""
