"""The reference procedure: how the research code evaluates an edited network.

For each edited network: a deep copy of the model, its weights set, every JPEG decoded and transformed again, batches of
200, float32, contiguous memory, a full forward pass.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision import transforms

import spurious_memorization as sm

BATCH = 200


def reference_seconds(model: nn.Module, edits: Sequence[sm.Edit], files: Sequence[Path]) -> float:
    """Seconds that the procedure takes for one edited network and one image, measured on these edits and files."""
    transform = transforms.Compose(
        [
            transforms.Resize((256, 256)),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    started = time.perf_counter()
    for edit in edits:
        network = copy.deepcopy(model).eval()
        network.load_state_dict(sm.edits.edited_tensors(model, edit), strict=False)
        with torch.no_grad():
            for first in range(0, len(files), BATCH):
                images = [transform(Image.open(file).convert("RGB")) for file in files[first : first + BATCH]]
                network(torch.stack(images)).argmax(1)
    return (time.perf_counter() - started) / (len(edits) * len(files))
