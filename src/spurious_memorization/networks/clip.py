"""Networks that place images and words in one space: CLIP, by the library open_clip."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..console import progress
from ..datasets.sources import Images
from ..errors import UserError, first_line
from ..extras import imported
from ..input_files import shown

HUB = "hf-hub:"


@dataclass(frozen=True, eq=False)
class Clip:
    """A network for images and words.

    Arguments:
        model: of open_clip, in evaluation mode, on its device.
        transform: from an image to its input.
        tokens: from texts to their input.
        device: of the model.
    """

    model: nn.Module
    transform: Callable[[Image.Image], Tensor]
    tokens: Callable[[Sequence[str]], Tensor]
    device: torch.device


def load_clip(name: str, device: torch.device) -> Clip:
    """A network of open_clip. Weights are never unpickled.

    Arguments:
        name: a folder with `open_clip_config.json` and weights; ARCHITECTURE:WEIGHTS, where WEIGHTS is a file or a name
            that open_clip downloads; or hf-hub:OWNER/NAME.
        device: where it runs.

    Raises:
        UserError: open_clip is not installed; there is no such network; its weights are missing, broken or don't fit;
            they have to be downloaded, and the hub can't be reached.
    """
    open_clip = imported("open_clip", "clip")
    architecture, weights = _place(name)
    try:
        with without_log():
            model, transform = open_clip.create_model_from_pretrained(
                architecture, weights, device=device, weights_only=True
            )
            tokens = open_clip.get_tokenizer(architecture)
    except Exception as error:  # open_clip and the libraries that download raise errors of many types
        raise UserError(
            f"--clip {shown(name)} can't be loaded ({first_line(error)}): give a folder with open_clip_config.json and "
            "its weights, or ARCHITECTURE:FILE"
        ) from error
    return Clip(model.eval(), transform, tokens, device)


def image_embeddings(clip: Clip, images: Images, index: NDArray[np.int64], batch_size: int) -> NDArray[np.float64]:
    """The embeddings of images, each of length 1.

    Arguments:
        clip: the network.
        images: of a data set.
        index: of the samples, [samples].
        batch_size: images per forward pass.

    Returns:
        [samples, dimensions].

    Raises:
        UserError: an image is missing or can't be read.
    """
    parts = np.array_split(index, max(1, -(-len(index) // batch_size)))
    found = []
    for part in progress(parts, len(parts), "images"):
        inputs = torch.stack([clip.transform(images.open(sample)) for sample in part.tolist()])
        found.append(_normalized(clip, "encode_image", inputs))
    return np.concatenate(found)


def text_embeddings(clip: Clip, texts: Sequence[str]) -> NDArray[np.float64]:
    """The embeddings of texts, each of length 1, [texts, dimensions]."""
    return _normalized(clip, "encode_text", clip.tokens(texts))


def _normalized(clip: Clip, method: str, inputs: Tensor) -> NDArray[np.float64]:
    with torch.inference_mode():
        embeddings = getattr(clip.model, method)(inputs.to(clip.device), normalize=True)
    return np.asarray(embeddings.cpu().double().numpy())


def _place(name: str) -> tuple[str, str | None]:
    """Architecture and weights as open_clip names them.

    Raises:
        UserError: neither a folder nor weights are named.
    """
    if Path(name).is_dir():
        return f"local-dir:{name}", None
    if name.startswith(HUB):
        return name, None
    architecture, _, weights = name.partition(":")
    if not weights:
        raise UserError(f"--clip {shown(name)} is no folder: name its weights, too, as in ViT-B-32:weights.safetensors")
    return architecture, weights


@contextmanager
def without_log() -> Iterator[None]:
    """open_clip logs to the root logger, which would print its lines beside the error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
