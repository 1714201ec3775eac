"""The studies of You et al. (2025): their commands, result files and grids, and one call that reproduces each study."""
