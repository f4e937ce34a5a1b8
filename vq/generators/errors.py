"""The error that generators raise."""

from vq.errors import UserError


class GeneratorError(UserError, ValueError):
    """A generator's settings, sampling settings, indices or classes that cannot be used."""
