"""Edits: changes of a network as plain data, and their application to give new tensors."""
