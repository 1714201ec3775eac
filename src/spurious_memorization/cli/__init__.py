"""The command `spurmem`: one module a group of commands, each a thin layer over the Python API."""

from .app import main

__all__ = ["main"]
