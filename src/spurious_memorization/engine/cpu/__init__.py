"""Parts that only CPUs need. Each can be switched off, and then PyTorch's own operations are used."""
