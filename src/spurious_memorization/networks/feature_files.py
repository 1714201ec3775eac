"""Features that are kept on disk, beside the decoded images."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cache_folder import cache_folder
from ..console import log
from ..datasets.cache import cache_limit, make_room
from ..datasets.samples import Dataset
from ..datasets.sources import Images
from ..errors import UserError
from ..stored_files import read_tensors, write_tensors

FORMAT = 1
SUFFIX = ".features"


def feature_file(network: nn.Module, head: str, data: Dataset) -> Path | None:
    """The file of the features of these samples by all layers of a network but its head.

    The name depends on layers and weights, on the versions of the image files and on their transform.

    Arguments:
        network: in evaluation mode.
        head: module name of its head.
        data: the samples.

    Returns:
        The file, which may not exist. None if nothing is to be kept; see `cache_folder`.
    """
    folder = cache_folder()
    if folder is None or not cache_limit():
        return None
    digest = hashlib.sha256(json.dumps([FORMAT, torch.__version__, head, str(network)]).encode())
    for name, value in sorted(network.state_dict().items()):
        if not name.startswith(f"{head}."):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    source = data.source
    versions = [source.files.version(path) for path in source.paths] if isinstance(source, Images) else []
    digest.update(repr((data.fingerprint(), versions, data.transform, data.split.tolist())).encode())
    return folder / f"{digest.hexdigest()[:32]}{SUFFIX}"


def read_features(file: Path, n: int, width: int) -> Tensor | None:
    """Features [samples, features] of a file. None if it is missing, broken or of another shape."""
    try:
        features = read_tensors(file, "it is made again")[0].get("features")
        os.utime(file)
    except (UserError, OSError):
        return None
    return None if features is None or features.shape != (n, width) else features


def write_features(file: Path, features: Tensor) -> None:
    """Keep features, if there is room; a line says if there is none."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if make_room(file.parent, features.nbytes, keep=file) < features.nbytes:
            log(f"features of {features.nbytes / 1e9:.1f} GB are not kept, as they don't fit: raise SPURMEM_CACHE_GB")
            return
        write_tensors(file, {"features": features})
    except (OSError, UserError) as error:
        log(f"features can't be kept in {file.parent} ({error}): set SPURMEM_CACHE to another folder")
