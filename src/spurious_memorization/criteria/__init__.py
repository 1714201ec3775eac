"""Scores of every unit of a network, by criterion; the samples they need; and the first units in their order."""
