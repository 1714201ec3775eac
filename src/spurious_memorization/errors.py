"""The exception for errors that the user can fix."""


class UserError(Exception):
    """Something in the user's input, files or machine is wrong, and the user can fix it.

    The message is one line: what is wrong, then what fixes it. The command line prints it and exits with status 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, to be quoted in a one-line `UserError`."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of the device is full.

    PyTorch has no type of its own for the memory of the machine.
    """
    return isinstance(error, MemoryError) or any(words in str(error) for words in ("out of memory", "allocate memory"))
