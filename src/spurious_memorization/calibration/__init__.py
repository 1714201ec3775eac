"""How far the tool itself can be trusted: planted truth that it should find, and nulls where it should find nothing."""
