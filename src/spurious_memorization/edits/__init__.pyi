from .apply import channel_means, edited, edited_tensors, feature_means
from .edit import mean, random_init, random_noise, rewind, transplant, zero
from .strongest import strongest_edit

__all__ = [
    "channel_means",
    "edited",
    "edited_tensors",
    "feature_means",
    "mean",
    "random_init",
    "random_noise",
    "rewind",
    "strongest_edit",
    "transplant",
    "zero",
]
