"""How often the tool's own verdicts are right: networks with planted channels, and nulls where nothing can be found."""
