from .apply import channel_means, edited, edited_tensors
from .edit import mean, random_init, random_noise, rewind, zero

__all__ = ["channel_means", "edited", "edited_tensors", "mean", "random_init", "random_noise", "rewind", "zero"]
