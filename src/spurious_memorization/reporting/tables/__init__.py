"""One model of a table, its output formats, and the functions that make each table."""
