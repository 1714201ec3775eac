"""Edits: changes of a network, given as data and applied to a copy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
