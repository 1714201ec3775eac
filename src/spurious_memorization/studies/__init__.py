"""A study: rankings x sizes x edits x repeats, compared with random units and counted per group."""
