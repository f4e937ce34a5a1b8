"""Experiments: contestants trained under equal conditions, and what the differences of their scores are worth."""
