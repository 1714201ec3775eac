"""A study: rankings x sizes x edits x repeats, compared with matched controls and counted per group."""
