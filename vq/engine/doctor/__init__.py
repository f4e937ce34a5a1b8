"""Examines a training before it starts: what would fail, what would waste hours, and what would spoil its numbers.

A check is a function of a `Case` that yields findings. `examination.py` runs all of them.
"""
