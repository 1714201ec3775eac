"""Weight files: harmful pickles, damaged files, wrappers, and tensors that a network can't have."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from . import odd
from .command_lines import NETWORK
from .valid import Valid, copy_data, with_odd_files

FILES = (
    "w.pth",
    "w.pt",
    "w.bin",
    "w.safetensors",
    "w",
    "epoch_3_checkpoints.pth.tar",
    "w-0676ba61.pth",
    "w_12345678.pth",
)
COMMANDS = (
    ["import", "data", "--out=out", f"--model={NETWORK}"],
    ["import", "data", "--out=out", f"--model={NETWORK}", "--weight-format=research"],
    ["import", "data", "--out=out", f"--model={NETWORK}", "--weight-key=state_dict"],
    ["import", "data", "--out=out", f"--model={NETWORK}", "--head=fc"],
    ["train", "data", "--out=out", f"--model={NETWORK}", "--epochs=0"],
    ["train", "data", "--out=out", f"--model={NETWORK}", "--epochs=1", "--batch-size=8"],
)
PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "module._orig_mod.",
    "model.net.module.",
    "backbone.",
    ".",
    "",
    "conv1.",
)
KEYS = ("state_dict", "model_state_dict", "model", "net", "ema", "state_dict_ema", "", 1, None, ("a", 1))


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ../executed",)


def checkpoint(rng: random.Random, folder: Path, valid: Valid) -> list[str]:
    """An odd weight file, to be imported or trained on."""
    copy_data(valid, folder)
    with_odd_files(folder)
    state = torch.load(valid.weights, weights_only=True)
    file = folder / rng.choice(FILES)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        state = _changed(rng, state)
    content: Any = state
    for _ in range(rng.choice((0, 0, 1, 2))):
        content = _wrapped(rng, content)
    _write(rng, file, content, state)
    if rng.random() < 0.2:
        file.write_bytes(odd.damaged(rng, file.read_bytes()))
    given = file.name if rng.random() < 0.95 else rng.choice(odd.FILES)
    return [*rng.choice(COMMANDS), f"--weights={given}"]


def _changed(rng: random.Random, state: dict[str, Any]) -> dict[str, Any]:
    """A state dict with a changed tensor or changed names."""
    if not state:
        return {"fc.weight": torch.zeros(2, 12)}
    name = rng.choice([name for name in state if isinstance(name, str)] or ["x"])
    value = state.get(name, torch.zeros(3))
    if rng.random() < 0.25:
        prefix = rng.choice(PREFIXES)
        return {f"{prefix}{n}" if rng.random() < 0.97 else n: v for n, v in state.items()}
    if rng.random() < 0.15:
        return {n: v for n, v in state.items() if n != name}
    if rng.random() < 0.1:
        new = rng.choice(
            ("fc.0.weight", "head.0.weight", "", "x" * 5000, "\udcff", "a\nb", "conv1", "conv1.weight.x", 5)
        )
        return {**state, new: value}
    return {**state, name: _changed_value(rng, value)}


def _quantized(value: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch will drop these tensors, but files hold them
        return torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)


def _changed_value(rng: random.Random, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    dense = value.to_dense() if value.layout is not torch.strided else value
    if dense.is_quantized:
        return dense
    makers = (
        lambda: torch.tensor(1.0),
        lambda: dense.unsqueeze(0),
        lambda: dense.flatten()[:1],
        lambda: torch.zeros(0),
        lambda: dense.double(),
        lambda: dense.half(),
        lambda: dense.bfloat16(),
        lambda: dense.to(torch.complex64),
        lambda: dense.long(),
        lambda: dense > 0,
        lambda: dense.float() * float("nan"),
        lambda: dense.float() * 1e30,
        lambda: dense.float() * float("inf"),
        lambda: dense.float().to_sparse(),
        lambda: _quantized(dense),
        lambda: torch.zeros(1).expand(*(10**6,) * 3) if rng.random() < 0.5 else torch.zeros(1).expand(2, 10**9),
        lambda: torch.empty(dense.shape, device="meta"),
        lambda: torch.nn.Parameter(dense.float()),
        lambda: dense.tolist(),
        lambda: dense.float().numpy(),
        lambda: None,
        lambda: 3,
        lambda: "text",
        lambda: dense.to(torch.float8_e4m3fn),
    )
    return rng.choice(makers)()


def _wrapped(rng: random.Random, content: Any) -> Any:
    match rng.randrange(8):
        case 0 | 1 | 2:
            return {rng.choice(KEYS): content, "epoch": odd.integer(rng), "loss": odd.number(rng)}
        case 3:
            return {"state_dict": content, "ema": content, "model": content}
        case 4:
            return [content]
        case 5:
            return OrderedDict(a=OrderedDict(content) if isinstance(content, dict) else content, b=None)
        case 6:
            return {"epoch": 3, "model_state_dict": content, "optimizer_state_dict": {}, "loss": 0.5}
        case _:
            for _ in range(rng.choice((6, 500))):
                content = {"model": content}
            return content


def _write(rng: random.Random, file: Path, content: Any, state: dict[str, Any]) -> None:
    kind = rng.random()
    if kind < 0.1:
        harmful = {**content, "x": _Harmful()} if isinstance(content, dict) else [_Harmful()]
        with file.open("wb") as stream:
            if rng.random() < 0.5:
                pickle.dump(harmful, stream, protocol=rng.choice((0, 2, 5)))
            else:
                torch.save(harmful, stream)
    elif kind < 0.15:
        file.write_bytes(pickle.dumps(content if isinstance(content, list) else [1, 2]))
    elif kind < 0.18:
        network = torch.nn.Linear(2, 2)
        torch.save(rng.choice((network, torch.zeros(3), 5, None, "x", (1, 2), {})), file)
    elif kind < 0.28:
        file.write_bytes(_broken_safetensors(rng))
    elif kind < 0.45 or (file.suffix == ".safetensors" and rng.random() < 0.8):
        dense = {str(n): v.contiguous() for n, v in state.items() if _storable(v)}
        try:
            safetensors.torch.save_file(dense, file)
        except Exception:  # not every name can be stored
            file.write_bytes(b"")
    else:
        try:
            torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.8)
        except Exception:  # not every nesting can be stored
            file.write_bytes(b"PK\x03\x04")


def _storable(value: Any) -> bool:
    plain = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized
    return plain and value.device.type == "cpu" and value.numel() < 10**6


def _broken_safetensors(rng: random.Random) -> bytes:
    entry = {"dtype": "F32", "shape": [2, 12], "data_offsets": [0, 96]}
    entry |= rng.choice(
        (
            {"shape": [10**12, 10**12]},
            {"shape": [-1]},
            {"shape": "x"},
            {"data_offsets": [96, 0]},
            {"data_offsets": [0, 10**15]},
            {"dtype": "F99"},
            {"dtype": 5},
            {"data_offsets": []},
            {},
            {"x": 1},
        )
    )
    header = json.dumps(
        {"fc.weight": entry, "__metadata__": rng.choice(({}, {"checksums": "x"}, {"checksums": "{}"}, {"a": "b"}))}
    )
    length = rng.choice((len(header), len(header), 0, 2**63, 5, 10**9))
    return struct.pack("<Q", length) + header.encode() + bytes(rng.choice((96, 96, 95, 0)))
