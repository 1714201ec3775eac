"""A study: rankings x sizes x edits x repeats beside matched controls, counted per group."""
