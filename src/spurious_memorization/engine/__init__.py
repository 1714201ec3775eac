"""Outcomes of edited networks on samples: predicted class, loss and margin."""
