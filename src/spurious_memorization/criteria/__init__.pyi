from .gradients import gradient, taylor
from .random_scores import random
from .unseen import activation_difference, attribution_patching
from .weight_norms import weight_norm

__all__ = ["activation_difference", "attribution_patching", "gradient", "random", "taylor", "weight_norm"]
