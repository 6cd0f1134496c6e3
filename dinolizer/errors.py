"""The one error that a user can cause."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence: what was got, what is expected, and what to do. The command line
    prints it and exits with code 1; code that calls the package catches it as a ``ValueError``.
    """
