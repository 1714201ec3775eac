"""Odd inputs for the command line, made from seeds: each has to be accepted, or refused in one line."""
