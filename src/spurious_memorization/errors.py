"""The one exception for what a user can mend."""


class UserError(Exception):
    """Something in the user's input, files or machine that the user can mend.

    The message is one line: what is wrong, then what would mend it. The command line prints it and exits with
    status 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, for a one-line error of ours."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__
