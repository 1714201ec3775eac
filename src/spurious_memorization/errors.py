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

    PyTorch's type for a device is known by its name, since importing PyTorch takes long. It has none for the machine.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    is_said = any(words in str(error) for words in ("out of memory", "allocate memory"))
    return is_said or not names.isdisjoint(("MemoryError", "OutOfMemoryError"))
