"""Candidate groups of data that have labels only: which samples look unlike the others of their class."""
