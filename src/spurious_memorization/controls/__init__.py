"""Null sets: random units that stand beside the selected ones."""
