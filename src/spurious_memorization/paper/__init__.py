"""The paper's own studies: its commands, its result files, its grids, and one call that reproduces each."""
