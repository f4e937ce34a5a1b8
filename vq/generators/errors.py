"""The error of generators."""

from vq.errors import UserError


class GeneratorError(UserError, ValueError):
    """A setting of a generator or of its sampling, or indices or classes, that cannot be used."""
