"""Small networks with the research code's answers on them, as fixtures and with the tolerance of a comparison.

SPURMEM_GOLDEN may name another folder with files of the same names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks.weights import load_exactly, read_weights

GOLDEN = Path(os.environ.get("SPURMEM_GOLDEN") or Path(__file__).parent.parent / "golden")
TOLERANCE = 1e-4


class TinyResNet(nn.Module):
    """The architecture of golden's tiny.safetensors, with a plain head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(_Block())
        self.fc = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.bn1(self.conv1(x)).relu())
        return self.fc(x.mean((2, 3)))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.downsample = nn.Sequential(nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.downsample(x)).relu()


class Golden:
    """One network of the golden data, read through the project's own import of research checkpoints."""

    def __init__(self, model: nn.Module, tensors: dict[str, Tensor], expected: dict, folder: Path) -> None:
        self.tensors, self.expected = tensors, expected
        self.model = model.eval()
        self.older: dict[str, Tensor] = {}
        for prefix in ("model", "older"):
            state = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
            if state:
                file = folder / f"{prefix}.pth.tar"
                torch.save({"epoch": 40, "model_state_dict": state, "optimizer_state_dict": {}, "loss": 0.5}, file)
                weights = read_weights(file, form="research")
                assert weights.research
                if prefix == "older":
                    self.older = weights.state
                else:
                    load_exactly(self.model, weights.state, "golden")
        self.data = sm.from_tensors(tensors["x"], tensors["y"].numpy(), tensors["place"].numpy())
        assert np.array_equal(self.data.g, tensors["group"].numpy())

    def rules(self, criterion: str, unit: str):
        return sm.tracing_rules("paper", criterion, unit, self.model)

    def group_accuracies(self, edits: Sequence[sm.Edit] = ()) -> list[list[float]]:
        """Accuracy per group of the unedited network, then of the network after each edit alone."""
        outcomes = sm.evaluate(self.model, edits, self.data.train)
        predicted = [*outcomes.before.predicted, *(outcomes.after.predicted if edits else ())]
        return [[float((one == self.data.y)[self.data.g == g].mean()) for g in range(4)] for one in predicted]

    def threshold_units(self, fraction: float, largest: bool) -> sm.Units:
        scores = sm.criteria.weight_norm(self.model, select=self.rules("weight_norm", "weight").select)
        return sm.by_threshold(self.model, scores, sm.count_of(scores, fraction), largest=largest)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> Golden:
    tensors = load_file(GOLDEN / "tiny.safetensors")
    expected = json.loads((GOLDEN / "expected.json").read_text())
    return Golden(TinyResNet(), tensors, expected, tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Golden:
    tensors = load_file(GOLDEN / "tiny_vit.safetensors")
    expected = json.loads((GOLDEN / "expected_vit.json").read_text())
    model = VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=2)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    return Golden(model, tensors, expected, tmp_path_factory.mktemp("golden"))


@pytest.fixture(params=["resnet", "vit"])
def golden(request) -> Golden:
    return request.getfixturevalue(request.param)


def close(expected):
    return pytest.approx(expected, rel=TOLERANCE, abs=1e-6)
