"""Criteria that do what no input may do. They prove that the fuzz run notices it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from .outcomes import SENTINEL


def fills_memory(*_: Any) -> Any:
    """Ask for 16 GiB."""
    return np.ones(2**31)


def never_ends(*_: Any) -> Any:
    """Sleep."""
    time.sleep(600)


def runs_code(*_: Any) -> Any:
    """Leave the sentinel."""
    Path("..", SENTINEL).touch()


def writes_outside(*_: Any) -> Any:
    """Leave another file."""
    Path("..", "another").touch()


def fails(*_: Any) -> Any:
    """End the process without an error message."""
    os._exit(3)
