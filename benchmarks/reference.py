"""The reference procedure: how the research code evaluates an edited network.

For each edited network: a deep copy of the model, its weights set, every JPEG decoded and transformed again, batches of
200, float32, contiguous memory, a full forward pass. It runs in a process of its own, whose memory is as the C library
manages it by default. What it is compared with takes turns with it.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import timm
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

import spurious_memorization as sm

from .measures import uniform_channels

BATCH = 200


def _seconds(model: nn.Module, edits: Sequence[sm.Edit], files: Sequence[Path]) -> float:
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


class Reference:
    """The procedure for one network and some files, in its own process.

    Arguments:
        process: which runs this module.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def seconds(self) -> float:
        """Seconds for one edited network and one image, measured now. The edits take turns."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._process.stdin.write("measure\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


@contextmanager
def reference(model: nn.Module, name: str, files: Sequence[Path]) -> Iterator[Reference]:
    """The reference procedure in a process that ends with the block.

    Arguments:
        model: whose weights it uses.
        name: of its architecture in timm.
        files: JPEGs.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights, listed = Path(folder) / "weights.safetensors", Path(folder) / "files.json"
        safetensors.torch.save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
        listed.write_text(json.dumps(list(map(str, files))), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.reference", name, str(weights), str(listed)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield Reference(process)
            process.terminate()


def _serve(name: str, weights: str, listed: str) -> None:
    model = timm.create_model(name, num_classes=2)
    model.load_state_dict(safetensors.torch.load_file(weights))
    files = [Path(file) for file in json.loads(Path(listed).read_text(encoding="utf-8"))]
    edits = uniform_channels(model, 60)
    _seconds(model, edits[:1], files[:20])  # the first pass loads libraries
    for turn, _line in enumerate(sys.stdin):
        print(_seconds(model, [edits[turn % len(edits)]], files), flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
