"""What a run holds, for other programs: its samples as a table, and a section for a model card."""
