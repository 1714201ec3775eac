"""Control sets: random units that match the selected ones."""
