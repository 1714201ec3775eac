"""The contrast of SimCLR (Chen et al. 2020), NT-Xent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(one: Tensor, two: Tensor, temperature: float = 0.5) -> Tensor:
    """Normalized temperature-scaled cross-entropy of two views of the same samples.

    Each of the 2N views is classified among the 2N - 1 others, by cosine similarity divided by temperature. The right
    class is the other view of the same sample. The result is the mean over all views.

    Arguments:
        one: views of the samples, [samples, features].
        two: their other views, [samples, features].
        temperature: of the similarities.

    Example:
        ```python
        loss = sm.nt_xent(torch.randn(8, 16), torch.randn(8, 16), temperature=0.5)
        ```
    """
    views = F.normalize(torch.cat([one, two]).float(), dim=1)  # [2 samples, features]
    with torch.autocast(views.device.type, enabled=False):  # bf16 has too few digits for similar similarities
        similarities = views @ views.T / temperature  # [2 samples, 2 samples]
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    other_view = torch.arange(len(views), device=views.device).roll(len(one))
    return F.cross_entropy(similarities.masked_fill(itself, -torch.inf), other_view)


def dense_pruned_contrast(dense: Tensor, pruned: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent of dense and pruned outputs, [samples, features] each: once with the dense outputs held fixed, plus once
    with the pruned outputs held fixed."""
    return nt_xent(dense.detach(), pruned, temperature) + nt_xent(dense, pruned.detach(), temperature)
