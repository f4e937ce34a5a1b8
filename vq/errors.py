"""The base class of all errors that a user can fix.

A command ends with exit code 2 and the message of a `UserError`. Any other error is a bug of this project, and the
command ends with a traceback and exit code 1. A message says where the error is, what was expected, what was found and
how to fix it.
"""


class UserError(Exception):
    """An input, file or setting that cannot be used. The message says what to do instead."""


class ConfigError(UserError, ValueError):
    """A config that cannot be used. The message starts with the place in the config."""
