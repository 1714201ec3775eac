"""The exception for errors that the user can fix."""


class UserError(Exception):
    """Something in the user's input, files or machine is wrong, and the user can fix it.

    The message is one line: what is wrong, then what fixes it. The command line prints it and exits with status 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, to be quoted in a one-line `UserError`."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__
