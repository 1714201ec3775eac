"""A CLIP network of a few weights, as open_clip reads it from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


TOWERS: dict[str, dict[str, Any]] = {
    "vit": CONFIG["vision_cfg"],
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 64},
    "timm": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
}
"""A vision transformer, a residual network, and a network of timm."""


def make_clip(folder: Path, tower: str = "vit", *, quick_gelu: bool = False, **preprocess: Any) -> open_clip.CLIP:
    """Random weights, written into a folder with their configuration."""
    torch.manual_seed(0)
    config = {**CONFIG, "vision_cfg": TOWERS[tower], "quick_gelu": quick_gelu}
    model = open_clip.CLIP(**config).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.02, 0.2)  # else nothing of an image would reach the embedding
    for name, value in model.named_parameters():
        if name.endswith("bn3.weight"):  # which open_clip starts at 0
            nn.init.uniform_(value, 0.5, 2)
    folder.mkdir()
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], **preprocess}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model
