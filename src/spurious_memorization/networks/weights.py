"""Weight files: read without unpickling, verified, and converted to a plain state dict."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights, list_models

from ..errors import UserError, first_line
from ..input_files import regular_file
from ..settings import Settings
from ..stored_files import read_tensors, write_tensors
from .names import WeightFormat

StateDict = dict[str, Tensor]

MAX_DEPTH = 4
"""Depth of nested dictionaries in which state dicts are searched."""

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
_RESEARCH_ENTRIES = {"epoch", "model_state_dict", "optimizer_state_dict", "loss"}
_RESEARCH_NAME = re.compile(r"epoch_\d+_checkpoints\.pth\.tar")
_USUAL_KEYS = ("", "model_state_dict", "state_dict", "model", "net", "network", "module")
"""Where a checkpoint usually holds its state dict, in the order of choice. "" is the top level."""

_WRAPPERS = ("module", "_orig_mod", "model", "net", "network")


@dataclass(frozen=True)
class Weights:
    """The content of a weight file.

    Arguments:
        file: where it was read.
        state: tensors by parameter or buffer name.
        key: the entry of the file that held them; empty for the top level.
        research: whether the file has the form of the research code of You et al. (2025). Its head is already
            converted: the softmax is dropped, and the class index equals the label (that code keeps class 1 at
            position 0).
    """

    file: Path
    state: StateDict
    key: str = ""
    research: bool = False


@dataclass(frozen=True)
class Fit:
    """How the names of a state dict were made those of a network.

    Arguments:
        state: with the network's own names.
        prefix: what was taken off the names, such as "module.".
        left_out: names of the tensors that do not belong to the network.
    """

    state: StateDict
    prefix: str = ""
    left_out: tuple[str, ...] = ()


def read_weights(file: Path, *, key: str | None = None, form: WeightFormat = "auto") -> Weights:
    """Read a state dict from a safetensors or PyTorch file, at the top level or inside a checkpoint.

    A file under the name of a published file of torchvision or timm, such as `resnet50-0676ba61.pth`, must have the
    SHA-256 that the name states.

    Arguments:
        file: the file.
        key: the entry that holds the state dict, such as "state_dict_ema"; by default the usual one.
        form: "auto" takes a file for one of the research code only if it has all marks of one: the name
            `epoch_N_checkpoints.pth.tar`, that code's four entries, and its head.

    Raises:
        UserError: the file is missing, truncated or changed; it holds no state dict, several, or objects that could run
            code; it is said to be of the research code and is not.
    """
    regular_file(file, what="weight file")
    _verify_published(file)
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    found = dict(_state_dicts(content))
    if not found:
        raise UserError(f"{file} holds no state dict: save the network with torch.save(model.state_dict(), ...)")
    key = _chosen_key(file, found, key)
    state = found[key]
    for name, value in state.items():
        if value.layout is not torch.strided or value.is_quantized:
            raise UserError(f"{file}: {name} is a sparse or quantized tensor: save a dense one, with value.to_dense()")
        if value.is_meta:
            raise UserError(f"{file}: {name} has a shape but no values: save the network after its weights are loaded")
    if form == "plain" or (form == "auto" and not _is_research_file(file, content, state)):
        return Weights(file, state, key)
    state = _without_wrappers(state)
    head = next((head for head in _RESEARCH_HEADS if _is_research_head(state, head)), None)
    if head is None:
        raise UserError(
            f"{file} is not of the research code, whose head is fc.0 or head.0 with two outputs: "
            "leave out --weight-format research"
        )
    return Weights(file, _plain_head(state, head), key, research=True)


class WeightFile(Settings):
    """What was decided about a weight file. `run.json` stores it.

    Arguments:
        file: the file.
        sha256: of its content.
        key: the entry that held the state dict; empty for the top level.
        prefix: what was taken off the names.
        left_out: names of the tensors that do not belong to the network.
        research: whether it was read as a file of the research code.
        head: the layers that give the logits.
        head_loaded: whether the head has the file's values. Otherwise it starts at random.
    """

    file: str
    sha256: str
    key: str
    prefix: str
    left_out: tuple[str, ...]
    research: bool
    head: tuple[str, ...]
    head_loaded: bool

    def __str__(self) -> str:
        """In one line, for the log."""
        form = "a file of the research code, its two outputs turned round" if self.research else "a plain state dict"
        parts = [f"{form}{f' under {self.key}' if self.key else ''}"]
        if self.prefix:
            parts.append(f"{self.prefix!r} taken off its names")
        if self.left_out:
            more = ", ..." if len(self.left_out) > 3 else ""
            parts.append(f"{len(self.left_out)} tensors left out ({', '.join(self.left_out[:3])}{more})")
        parts.append(f"head {' and '.join(self.head) or 'without a layer'}")
        if not self.head_loaded:
            parts.append("which starts at random, as the file's has another number of outputs")
        return f"{Path(self.file).name}: {', '.join(parts)}"


def weight_file(weights: Weights, fitted: Fit, head: tuple[str, ...], head_loaded: bool = True) -> WeightFile:
    """The record of what was decided about a file."""
    with weights.file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return WeightFile(
        file=str(weights.file),
        sha256=digest,
        key=weights.key,
        prefix=fitted.prefix,
        left_out=fitted.left_out,
        research=weights.research,
        head=head,
        head_loaded=head_loaded,
    )


def fit(model: nn.Module, state: StateDict, heads: tuple[str, ...] = ()) -> Fit:
    """Find what to take off the names of a state dict so that they are those of a network.

    Names that fit as they are stay. Otherwise the prefix is one that gives every tensor of the network. Tensors without
    the prefix are left out. If no prefix does, wrappers that all names share (`module.`, `_orig_mod.`, `model.`,
    `net.`) are taken off.

    In a network that is one encoder and a head, the encoder alone may be what fits: the weights of CLIP hold it as
    `visual.`, beside another tower.

    Arguments:
        model: the network.
        state: tensors by name.
        heads: layers that the state dict may lack.

    Raises:
        UserError: several prefixes give every tensor of the network.
    """
    of_heads = tuple(f"{head}.{part}" for head in heads for part in ("weight", "bias"))
    own = {name for name in model.state_dict() if not name.endswith(("num_batches_tracked", *of_heads))}
    encoder = _encoder(own) if heads else ""
    if own <= state.keys():
        return _under(state, encoder, encoder, of_heads) if encoder else Fit(state)
    first = min(own, default="").removeprefix(encoder)
    prefixes = sorted({name.removesuffix(first) for name in state if f".{name}".endswith(f".{first}")})
    inner = [name.removeprefix(encoder) for name in own]
    fitting = [prefix for prefix in prefixes if all(f"{prefix}{name}" in state for name in inner)]
    if len(fitting) > 1:
        raise UserError(
            f"the weights hold the network {len(fitting)} times, under {' and '.join(fitting)}: save the one that you "
            "mean as a state dict of its own"
        )
    if fitting:
        return _under(state, fitting[0], encoder, of_heads)
    return Fit(_without_wrappers(state), _shared_wrappers(state))


def _encoder(names: Collection[str]) -> str:
    """The module that holds all of these tensors, such as "visual."; empty if there is none, or it is one layer."""
    starts = {name[: name.find(".") + 1] for name in names}
    return starts.pop() if len(starts) == 1 and any(name.count(".") > 1 for name in names) else ""


def _under(state: StateDict, prefix: str, encoder: str, of_heads: tuple[str, ...]) -> Fit:
    """The tensors of the encoder, which are those under a prefix, and of the head beside it, with their own names."""
    inside = {f"{encoder}{name.removeprefix(prefix)}": name for name in state if name.startswith(prefix)}
    outer = prefix.removesuffix(encoder)
    if prefix.endswith(encoder):
        inside |= {name: f"{outer}{name}" for name in of_heads if f"{outer}{name}" in state}
    chosen = {*inside.values()}
    return Fit(
        {own: state[name] for own, name in inside.items()},
        outer,
        tuple(name for name in state if name not in chosen),
    )


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


def load_exactly(model: nn.Module, state: StateDict, name: str) -> Fit:
    """Load a state dict whose tensors are those of the network, in name and shape, but for a prefix (see `fit`).

    A bias that the architecture lacks is added to its layer: the edit `mean` saves such biases.

    Returns:
        What was loaded, and what was taken off its names.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape or kind; the message names the first one.
    """
    fitted = fit(model, state)
    state = fitted.state
    add_biases(model, state)
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    compared = [key for key in own if key in state and not key.endswith("num_batches_tracked")]
    differing = [key for key in compared if not _fits(state[key], own[key])]
    if missing or unexpected or differing:
        if differing:
            key = differing[0]
            what = _difference(key, state[key], own[key])
        else:
            what = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is unknown"
        n = len(missing) + len(unexpected) + len(differing)
        raise UserError(
            f"the weights are of another architecture than {name}: {what} ({n} such): check --model"
            + _research_hint(state, missing)
        )
    model.load_state_dict(state, strict=False)
    return fitted


def add_biases(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Add a bias of zeros to each layer that lacks one, if `state` holds it."""
    for key in state:
        layer = _submodule(model, key.removesuffix(".bias")) if key.endswith(".bias") else None
        if (
            isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
            and layer.bias is None
            and state[key].shape == layer.weight.shape[:1]
        ):
            layer.bias = nn.Parameter(torch.zeros_like(state[key]))


def _fits(value: Tensor, own: Tensor) -> bool:
    return value.shape == own.shape and value.is_floating_point() == own.is_floating_point()


def _difference(name: str, value: Tensor, own: Tensor) -> str:
    if value.shape != own.shape:
        return f"{name} has shape {tuple(value.shape)}, not {tuple(own.shape)}"
    return f"{name} is of type {value.dtype}, not {own.dtype}"


def _research_hint(state: StateDict, missing: list[str]) -> str:
    for head in _RESEARCH_HEADS:
        if f"{head.removesuffix('.0')}.weight" in missing and _is_research_head(state, head):
            return (
                f"; its head {head} is inside a Sequential: if the research code of You et al. (2025) wrote the file, "
                "say --weight-format research, otherwise name your network as module:factory"
            )
    return ""


def _state_dicts(content: dict[str, Any], path: str = "", depth: int = 0) -> Iterator[tuple[str, StateDict]]:
    """{entry: the tensors in it}, for every entry of a checkpoint but the optimizer's."""
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if state:
        yield path, state
    for name, value in content.items():
        if isinstance(value, dict) and depth < MAX_DEPTH and "optim" not in str(name):
            yield from _state_dicts(value, f"{path}.{name}".lstrip("."), depth + 1)


def _chosen_key(file: Path, found: Mapping[str, StateDict], key: str | None) -> str:
    networks = {name: state for name, state in found.items() if any(value.ndim > 0 for value in state.values())}
    if key is not None:
        if key not in found:
            raise UserError(f"{file} has no state dict under {key!r}: it has {_listed(networks)}")
        return key
    usual = next((name for name in _USUAL_KEYS if name in networks), None)
    chosen = usual if usual is not None else next(iter(networks or found))
    if usual is None and len(networks) > 1:
        raise UserError(f"{file} holds several state dicts: choose one of {_listed(networks)} with --weight-key")
    return chosen


def _listed(networks: Mapping[str, StateDict]) -> str:
    return ", ".join(name or "the top level" for name in networks) or "none"


def _is_research_file(file: Path, content: dict[str, Any], state: StateDict) -> bool:
    plain = _without_wrappers(state)
    return (
        _RESEARCH_NAME.fullmatch(file.name) is not None
        and set(content) == _RESEARCH_ENTRIES
        and any(_is_research_head(plain, head) for head in _RESEARCH_HEADS)
    )


def _is_research_head(state: StateDict, head: str) -> bool:
    """Whether the head is one linear layer with two outputs. A head of several layers is a user's own network."""
    prefix = head.removesuffix("0")
    names = {name for name in state if name.startswith(prefix)}
    return names == {f"{head}.weight", f"{head}.bias"} and [*state[f"{head}.weight"].shape][:1] == [2]


def _shared_wrappers(state: StateDict) -> str:
    """The wrappers with which every name starts, such as "module._orig_mod."."""
    prefix = ""
    while state:
        first = next(iter(state)).removeprefix(prefix).partition(".")[0]
        if first not in _WRAPPERS or not all(name.startswith(f"{prefix}{first}.") for name in state):
            break
        prefix = f"{prefix}{first}."
    return prefix


def _without_wrappers(state: StateDict) -> StateDict:
    prefix = _shared_wrappers(state)
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _plain_head(state: StateDict, head: str) -> StateDict:
    name = head.removesuffix(".0")
    renamed = {f"{name}{key.removeprefix(head)}" if key.startswith(f"{head}.") else key: v for key, v in state.items()}
    for key in (f"{name}.weight", f"{name}.bias"):
        renamed[key] = renamed[key].flip(0)
    return renamed


def _verify_published(file: Path) -> None:
    hash_in_name = _HASH_IN_NAME.search(file.name)
    if hash_in_name is None or file.name not in _published_files():
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(hash_in_name[1]):
        raise UserError(
            f"{file} is broken or changed: its SHA-256 starts with {found[:8]}, not with the {hash_in_name[1]} of the "
            "published file of this name: fetch it again, or rename it if the change is yours"
        )


@cache
def _published_files() -> frozenset[str]:
    """Names of the weight files that torchvision and timm publish."""
    weights = [weight for name in list_models() for weight in get_model_weights(name)]
    configs = [timm.get_pretrained_cfg(name) for name in timm.list_pretrained()]
    urls = [weight.url for weight in weights] + [config.url for config in configs if config is not None and config.url]
    return frozenset(url.rpartition("/")[2] for url in urls)


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load_file(file))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is truncated or no safetensors file ({first_line(error)}): replace it") from error


def _read_torch(file: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the time that sparse tensors take; they are refused below
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
