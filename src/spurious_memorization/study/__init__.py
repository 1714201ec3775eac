"""A study: rankings x sizes x edits x repeats beside random controls, counted per group."""
