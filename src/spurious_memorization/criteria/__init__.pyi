from .gradients import gradient, taylor
from .random_scores import random
from .weight_norms import weight_norm

__all__ = ["gradient", "random", "taylor", "weight_norm"]
