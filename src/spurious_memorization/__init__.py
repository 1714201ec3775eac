"""Find, prove, look at and repair the neurons that memorise an image classifier's minority examples."""

__version__ = "0.1.0.dev0"
