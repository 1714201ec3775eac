"""The prefix engine: what several edited networks have in common is computed once."""
