"""The engine that computes a shared prefix once."""
