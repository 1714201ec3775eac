"""Edited networks on samples: network, edits and data in; outcomes out."""
