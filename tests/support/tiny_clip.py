"""A CLIP network of a few weights, as open_clip reads it from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def make_clip(folder: Path) -> open_clip.CLIP:
    """Random weights, written into a folder with their configuration."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG).eval()
    folder.mkdir()
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    content = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model
