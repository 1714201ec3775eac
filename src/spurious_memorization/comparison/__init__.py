"""Runs side by side: methods, the epochs chosen for them, their accuracies, and what became of channels."""
