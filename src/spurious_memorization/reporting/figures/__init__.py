"""The figures of the report, and their files."""
