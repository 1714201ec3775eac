"""Image towers of open_clip with a linear head: `open_clip:NAME`. Weights are never unpickled."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..console import log
from ..datasets.transforms import ImageTransform
from ..errors import UserError, first_line
from ..extras import imported
from ..input_files import regular_file
from .clip import without_log

PREFIX = "open_clip:"

CONFIG_FILE = "open_clip_config.json"

WEIGHT_FILES = (".safetensors", ".bin", ".pth")
"""Ends of the names of the files in which open_clip looks for a folder's weights."""

_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
"""The smallest text tower, which open_clip builds beside the image tower."""


class TowerWithHead(nn.Module):
    """The image tower of a CLIP network, and a linear layer that makes logits of its embeddings.

    Arguments:
        visual: the tower: images [samples, 3, height, width] -> embeddings [samples, width].
        head: the linear layer.
        image_size: side of the images in pixels.
    """

    def __init__(self, visual: nn.Module, head: nn.Linear, image_size: int) -> None:
        super().__init__()
        self.visual = visual
        self.head = head
        self.pretrained_cfg = {"input_size": (3, image_size, image_size), "classifier": "head"}

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.head(self.visual(images))
        return result


def names_weights(model: str) -> bool:
    """Whether `open_clip:NAME` also says where weights are: in a folder, or under a tag of open_clip."""
    architecture, weights = _place(model)
    return weights is not None or Path(architecture).is_dir()


def configuration(model: str) -> dict[str, Any]:
    """The configuration of an image tower, as plain data. The network can be built from it without its folder.

    Arguments:
        model: `open_clip:NAME`. NAME is a folder with `open_clip_config.json`, an architecture that open_clip knows, or
            ARCHITECTURE:TAG with the tag of weights that it knows.

    Returns:
        `embed_dim`, `quick_gelu` and `vision_cfg` as open_clip names them, and `preprocess_cfg`: mean, std,
        interpolation and resize_mode.

    Raises:
        UserError: open_clip is not installed, the architecture or the tag is unknown, or the folder's file is missing
            or broken.
    """
    open_clip = imported("open_clip", "clip")
    architecture, tag = _place(model)
    if Path(architecture).is_dir():
        stored = _stored(Path(architecture))
        of_network, of_images = stored["model_cfg"], stored.get("preprocess_cfg") or {}
    else:
        of_network = open_clip.get_model_config(architecture)
        if of_network is None:
            close = difflib.get_close_matches(architecture, open_clip.list_models(), n=3)
            hint = f" (close are {', '.join(close)})" if close else ""
            raise UserError(
                f"{model}: there is no folder and no architecture {architecture!r}{hint}: see open_clip.list_models()"
            )
        of_images = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
        if tag and not of_images:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
            raise UserError(f"{model}: there are no weights {tag!r}: open_clip has {tags}")
    try:
        return {
            "embed_dim": of_network["embed_dim"],
            "quick_gelu": bool(of_images.get("quick_gelu", of_network.get("quick_gelu", False))),
            "vision_cfg": dict(of_network["vision_cfg"]),
            "preprocess_cfg": {
                "mean": of_images.get("mean") or open_clip.OPENAI_DATASET_MEAN,
                "std": of_images.get("std") or open_clip.OPENAI_DATASET_STD,
                "interpolation": of_images.get("interpolation") or "bicubic",
                "resize_mode": of_images.get("resize_mode") or "shortest",
            },
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{CONFIG_FILE} of {model} describes no network ({first_line(error)}): replace it") from error


def build_network(
    model: str, stored: Mapping[str, Any], n_classes: int, image_size: int | None, pretrained: bool
) -> tuple[nn.Module, bool]:
    """The image tower with a head that starts at random, and False, since no head has trained weights.

    Arguments:
        model: `open_clip:NAME`.
        stored: see `configuration`.
        n_classes: number of outputs.
        image_size: side of the images in pixels; None for the tower's own.
        pretrained: whether it gets the weights of its folder or tag. Otherwise they are random.

    Raises:
        UserError: the configuration can't be built, or there are no weights, or they can't be loaded.
    """
    open_clip = imported("open_clip", "clip")
    vision = {**stored["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    if image_size is not None:
        vision["image_size"] = image_size
    try:
        whole = open_clip.CLIP(stored["embed_dim"], vision, _NO_TEXT, quick_gelu=stored["quick_gelu"])
        visual = whole.visual
        if image_size is not None and hasattr(visual, "set_input_size"):
            visual.set_input_size(image_size)
        network = TowerWithHead(visual, nn.Linear(stored["embed_dim"], n_classes), _side(model, vision))
    except UserError:
        raise
    except Exception as error:  # a configuration can ask for anything
        raise UserError(f"{model} can't be built from its configuration: {first_line(error)}") from error
    if pretrained:
        _load_weights(open_clip, model, network, stored, image_size)
    return network, False


def own_transform(model: str, stored: Mapping[str, Any]) -> ImageTransform:
    """The transform with which open_clip prepares images for the tower.

    Raises:
        UserError: its images are no squares.
    """
    of = stored["preprocess_cfg"]
    size = _side(model, stored["vision_cfg"])
    if of["resize_mode"] == "longest":
        log(f"note: open_clip fills the rest of an image for {model} with black; here it is filled with the mean color")
    return ImageTransform(
        image_size=size,
        resize=size,
        keep_aspect=of["resize_mode"] == "shortest",
        pad=of["resize_mode"] == "longest",
        interpolation="bilinear" if of["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(of["mean"]),
        std=tuple(of["std"]),
    )


def _place(model: str) -> tuple[str, str | None]:
    """A folder or an architecture, and the tag of its weights."""
    name = model.removeprefix(PREFIX)
    if Path(name).is_dir():
        return name, None
    architecture, _, tag = name.partition(":")
    return architecture, tag or None


def _stored(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    regular_file(file, what="configuration")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} can't be read ({first_line(error)}): replace it") from error
    if not isinstance(content, dict) or not isinstance(content.get("model_cfg"), dict):
        raise UserError(f"{file} has no model_cfg: name a folder that open_clip saved")
    return content


def _side(model: str, vision: Mapping[str, Any]) -> int:
    size = vision.get("image_size", 224)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if height != width:
        raise UserError(f"{model} takes images of {height} x {width}: give a square's side with --image-size")
    return int(height)


def _load_weights(
    open_clip: Any, model: str, network: TowerWithHead, stored: Mapping[str, Any], image_size: int | None
) -> None:
    architecture, tag = _place(model)
    is_folder = Path(architecture).is_dir()
    if not is_folder and tag is None:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        named = f"name some, as in {model}:{tags[0]}" if tags else "open_clip has none"
        raise UserError(f"{model} names no weights: {named}, or give a file with --weights FILE")
    if is_folder and not any(file.suffix in WEIGHT_FILES for file in Path(architecture).iterdir()):
        raise UserError(
            f"{model} has no weights: put {CONFIG_FILE} and the weights ({', '.join(WEIGHT_FILES)}) into one folder, "
            "give a file with --weights FILE, or --weights none"
        )
    try:
        with without_log():
            whole = open_clip.create_model(
                f"local-dir:{architecture}" if is_folder else architecture,
                tag,
                force_quick_gelu=stored["quick_gelu"],
                force_image_size=image_size,
                require_pretrained=True,
                weights_only=True,
            )
            network.visual.load_state_dict(whole.visual.state_dict())
    except Exception as error:  # open_clip and the libraries that download raise errors of many types
        side = _side(model, stored["vision_cfg"])
        own_size = "" if image_size in (None, side) else f"use the tower's own --image-size {side}, "
        raise UserError(
            f"the weights of {model} can't be loaded ({first_line(error)}): {own_size}give a file with --weights FILE, "
            "or --weights none"
        ) from error
