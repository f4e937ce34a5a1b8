"""Evaluation: scores and example images of a tokenizer or a generator over a whole set."""
