"""Further processes that don't run the user's script again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_main_script() -> Iterator[None]:
    """Start processes within this block: they don't import the script that the user runs.

    A new process that is no fork imports the main script, to find its functions. A script without
    `if __name__ == "__main__":` would start its work again there, and fail. Nothing that this package sends to a
    process is defined in a user's script.
    """
    main: dict[str, object] = vars(sys.modules["__main__"])
    hidden: dict[str, object] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)
