"""The base class of every error that a user can mend.

A command ends with exit code 2 and the message of a `UserError`; anything else is a defect of this project and ends
with a traceback and exit code 1. A message names the place, what was expected, what was found, and what to do.
"""


class UserError(Exception):
    """An input, file or setting that cannot be used; the message says what to do instead."""


class ConfigError(UserError, ValueError):
    """A config that cannot be used. The message starts with the place in the config."""
