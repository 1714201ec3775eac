"""Weight files: read without unpickling, verified, and converted to a plain state dict."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import UserError, first_line
from ..stored_files import read_tensors, write_tensors

StateDict = dict[str, Tensor]

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth$")
_numpy_scalar = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]
"""Types other than tensors that training scripts leave in checkpoints. None of them runs code when it is read."""

_RESEARCH_HEADS = ("fc.0", "head.0")


@dataclass(frozen=True)
class Weights:
    """The content of a weight file.

    Arguments:
        state: tensors by parameter or buffer name.
        research: whether the research code of You et al. (2025) wrote the file. Its head is already converted: the
            softmax is dropped, and the class index equals the label (that code keeps class 1 at position 0).
    """

    state: StateDict
    research: bool = False


def read_weights(file: Path) -> Weights:
    """Read a state dict from a safetensors or PyTorch file, bare or under "model", "state_dict" or "model_state_dict".

    If the name of a file ends in eight hex digits, like `resnet50-19c8e357.pth`, its SHA-256 must start with them.

    Raises:
        UserError: the file is missing, truncated or changed; it holds no state dict, or objects that could run code.
    """
    if not file.is_file():
        raise UserError(f"weight file {file} does not exist: check the path")
    _verify_name(file)
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{file} holds no state dict: save the network with torch.save(model.state_dict(), ...)")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    head = next((head for head in _RESEARCH_HEADS if _is_research_head(state, head)), None)
    return Weights(_plain_head(state, head), research=True) if head else Weights(state)


def save_state(file: Path, state: StateDict) -> None:
    """Write a state dict as safetensors, whole or not at all."""
    write_tensors(file, state)


def read_state(file: Path, remedy: str = "replace it") -> StateDict:
    """Read a state dict that `save_state` wrote.

    Arguments:
        file: which is read.
        remedy: what to do if it is missing or broken.

    Raises:
        UserError: the file is missing or broken.
    """
    return read_tensors(file, remedy)[0]


def load_exactly(model: nn.Module, state: StateDict, name: str) -> None:
    """Load a state dict with exactly the names and shapes of the network.

    A bias that the architecture lacks is added to its layer: the edit `mean` saves such biases.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape; the message names the first one.
    """
    add_biases(model, state)
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    differing = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or differing:
        if differing:
            key = differing[0]
            what = f"{key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        else:
            what = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is unknown"
        n = len(missing) + len(unexpected) + len(differing)
        raise UserError(f"the weights are of another architecture than {name}: {what} ({n} such): check --model")
    model.load_state_dict(state, strict=False)


def add_biases(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Add a bias of zeros to each layer that lacks one, if `state` holds it."""
    for key in state:
        layer = _submodule(model, key.removesuffix(".bias")) if key.endswith(".bias") else None
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(state[key]))


def _is_research_head(state: StateDict, head: str) -> bool:
    """Whether the head is one linear layer with two outputs. A head of several layers is a user's own network."""
    prefix = head.removesuffix("0")
    names = {name for name in state if name.startswith(prefix)}
    return names == {f"{head}.weight", f"{head}.bias"} and len(state[f"{head}.weight"]) == 2


def _plain_head(state: StateDict, head: str) -> StateDict:
    name = head.removesuffix(".0")
    renamed = {f"{name}{key.removeprefix(head)}" if key.startswith(f"{head}.") else key: v for key, v in state.items()}
    for key in (f"{name}.weight", f"{name}.bias"):
        renamed[key] = renamed[key].flip(0)
    return renamed


def _verify_name(file: Path) -> None:
    hash_in_name = _HASH_IN_NAME.search(file.name)
    if not hash_in_name:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(hash_in_name[1]):
        raise UserError(
            f"{file} is broken or changed: its SHA-256 starts with {found[:8]}, not {hash_in_name[1]} as in its name: "
            "fetch it again"
        )


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load_file(file))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is truncated or no safetensors file ({first_line(error)}): replace it") from error


def _read_torch(file: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(file) or b"Weights only load failed" in str(error).encode():
            raise UserError(
                f"{file} can't be read safely: it is broken, or holds objects that could run code when read; "
                "save it again as a plain state dict or as safetensors"
            ) from error
        raise UserError(f"{file} is no weight file: {first_line(error)}") from error
    except Exception as error:  # a broken pickle can raise any exception
        raise UserError(f"{file} is truncated or no PyTorch file ({first_line(error)}): replace it") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{file} holds a {type(content).__name__}, not a state dict: "
            "save it with torch.save(model.state_dict(), ...)"
        )
    return content


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None
