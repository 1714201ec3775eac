"""A run: the directory of one network."""
