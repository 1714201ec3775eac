"""What happens within a worker, whatever process or machine it is on."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..errors import UserError
from .places import Run


class Body:
    """Makes a function once, and calls it for each piece of work.

    An exception is given as a value. Raised, it would reach the user with another type and message.
    """

    def start(
        self, make: bytes, threads: int, places: Sequence[str] = (), folder: str | None = None
    ) -> tuple[bool, Any]:
        """Make the function.

        Arguments:
            make: the pickled function that makes it.
            threads: of PyTorch in this process.
            places: where the main process finds modules.
            folder: in which the main process works, so that relative paths mean the same here.
        """
        import torch

        if folder is not None:
            with suppress(OSError):  # another machine may lack it
                os.chdir(folder)
        sys.path += [place for place in places if place not in sys.path]
        torch.set_num_threads(threads)
        return self._told(lambda _: self._keep(pickle.loads(make)()), None)  # noqa: S301  # from the main process

    def run(self, piece: bytes) -> tuple[bool, Any]:
        """Run one pickled piece."""
        return self._told(lambda content: self._run(pickle.loads(content)), piece)  # noqa: S301  # likewise

    def _keep(self, run: Run) -> None:
        self._run = run

    @staticmethod
    def _told(function: Run, argument: object) -> tuple[bool, Any]:
        try:
            return True, function(argument)
        except UserError as error:
            return False, error
        except Exception as error:
            error.add_note(f"in a worker:\n{traceback.format_exc()}")
            return False, error
