"""Published accuracies of methods against spurious correlations: their sources, our commands, and what was measured."""
