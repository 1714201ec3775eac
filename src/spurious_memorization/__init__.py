"""Find, prove, look at and repair the neurons that memorize a classifier's minority examples.

The names of this package are listed in `__init__.pyi`. Each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
