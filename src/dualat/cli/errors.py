"""What is wrong with a command line. Imports nothing: an interrupt while it is imported would be a traceback."""


class UsageError(ValueError):
    """The command line makes no sense: exit code 2."""
