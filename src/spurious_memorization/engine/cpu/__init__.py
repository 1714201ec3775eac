"""Kernels for CPUs; each falls back to PyTorch's own operation."""
