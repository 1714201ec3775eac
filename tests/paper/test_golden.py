"""The research code's answers on two small networks, met with the `paper` settings.

SPURMEM_GOLDEN may name another folder with files of the same names; sizes and fractions are read from their keys.
"""

from __future__ import annotations

import json
import math
import os
import re
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
                weights = read_weights(file)
                assert weights.research
                if prefix == "older":
                    self.older = weights.state
                else:
                    load_exactly(self.model, weights.state, "golden")
        self.data = sm.from_tensors(tensors["x"], tensors["y"].numpy(), tensors["place"].numpy())
        assert np.array_equal(self.data.g, tensors["group"].numpy())

    def rules(self, criterion: str, unit: str):
        return sm.tracing_rules("paper", criterion, unit, self.model)

    def group_accuracy(self, edit: sm.Edit | None = None) -> list[float]:
        outcomes = sm.evaluate(self.model, [edit] if edit else [], self.data.train)
        block = outcomes.after if edit else outcomes.before
        return [float((block.predicted[0] == self.data.y)[self.data.g == g].mean()) for g in range(4)]

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


def test_golden_group_accuracy(golden):
    assert golden.group_accuracy() == close(golden.expected["group_accuracy"])
    assert np.bincount(golden.data.g, minlength=4).tolist() == golden.expected["group_sizes"]


def test_golden_probabilities(golden):
    batch = golden.data.train.batch()
    with torch.no_grad():
        probabilities = golden.model(batch.inputs).softmax(1)
    expected = torch.tensor(golden.expected["probabilities"]).flip(1)
    torch.testing.assert_close(probabilities, expected, rtol=TOLERANCE, atol=1e-6)


def largest_channels(golden: Golden, n: int) -> tuple[sm.Scores, sm.Units]:
    scores = sm.criteria.weight_norm(golden.model, select=golden.rules("weight_norm", "channel").select)
    return scores, sm.top(scores, n)


def named(scores: sm.Scores, units: sm.Units) -> list[tuple[str, int, float]]:
    return [(name, index, float(scores[name][index])) for name, index in units]


def assert_same_channels(found: list[tuple[str, int, float]], expected: list[list]) -> None:
    assert [entry[:2] for entry in found] == [tuple(entry[:2]) for entry in expected]
    assert [entry[2] for entry in found] == close([entry[2] for entry in expected])


def test_golden_largest_channels(resnet):
    key = next(key for key in resnet.expected if key.startswith("largest_channels_top"))
    n = int(key.removeprefix("largest_channels_top"))
    assert_same_channels(named(*largest_channels(resnet, n)), resnet.expected[key])


def test_golden_largest_channels_edited(resnet):
    pattern = re.compile(r"largest_top(\d+)_(zero|rewind)_group_accuracy")
    cases = [(match, value) for key, value in resnet.expected.items() if (match := pattern.fullmatch(key))]
    assert cases
    for match, expected in cases:
        _, units = largest_channels(resnet, int(match[1]))
        edit = sm.edits.zero(units) if match[2] == "zero" else sm.edits.rewind(units, resnet.older)
        assert resnet.group_accuracy(edit) == close(expected), match[0]


def test_golden_gradient_by_group(resnet):
    for group, expected in resnet.expected["gradient"].items():
        rules = resnet.rules("gradient", "channel")
        worst_key = next(key for key in expected if key.startswith("worst_"))
        n = int(re.fullmatch(r"worst_(\d+)_sample_ids", worst_key)[1])
        worst = sm.hardest_samples(resnet.model, resnet.data.train, group=int(group), n=n, loss=rules.loss)
        assert worst.index.tolist() == expected[worst_key]
        scores = sm.criteria.gradient(resnet.model, worst, select=rules.select, loss=rules.loss)
        for key, value in expected.items():
            if match := re.fullmatch(r"top(\d+)", key):
                assert_same_channels(named(scores, sm.top(scores, int(match[1]))), value)
            elif match := re.fullmatch(r"top(\d+)_zero_group_accuracy", key):
                assert resnet.group_accuracy(sm.edits.zero(sm.top(scores, int(match[1])))) == close(value)


def test_golden_thresholds(golden):
    cases = golden.expected["threshold"]
    assert cases
    for name, expected in cases.items():
        order, fraction, kind = name.split("_")
        units = golden.threshold_units(float(fraction), largest=order == "largest")
        edit = sm.edits.zero(units) if kind == "zero" else sm.edits.rewind(units, golden.older)
        chosen = {k: len(v) for k, v in units.by_name().items()}
        as_stored = {k.replace("fc.0.", "fc.").replace("head.0.", "head."): v for k, v in expected["changed"].items()}
        assert chosen == {k: v for k, v in as_stored.items() if v}, name
        assert golden.group_accuracy(edit) == close(expected["group_accuracy"]), name


def test_golden_prunable_tensors(vit):
    select = vit.rules("weight_norm", "weight").select
    names = [name.removesuffix(".weight") for name in sm.criteria.weight_norm(vit.model, select=select)]
    assert names == vit.expected["prunable"]


def test_golden_prunable_convolutions(resnet):
    select = resnet.rules("weight_norm", "weight").select
    names = {name.removesuffix(".weight") for name in sm.criteria.weight_norm(resnet.model, select=select)}
    assert names == set(next(iter(resnet.expected["magnitude_pruning"].values())))


def test_standard_selects_exactly_n_prunable_weights_where_golden_selects_by_threshold(golden):
    select = sm.tracing_rules("standard", "weight_norm", "weight", golden.model).select
    scores = sm.criteria.weight_norm(golden.model, select=select)
    for fraction in (0.01, 0.2):
        n = sm.count_of(scores, fraction)
        assert n == math.ceil(fraction * sum(v.numel() for v in scores.values()))
        for largest in (True, False):
            units = sm.top(scores, n, largest=largest)
            assert len(units) == n
            assert set(units.by_name()) <= set(scores)
            flat = torch.cat([v.flatten() for v in scores.values()]).sort(descending=largest).values
            chosen = torch.tensor([float(scores[name].flatten()[index]) for name, index in units])
            torch.testing.assert_close(chosen, flat[:n])


def test_standard_considers_downsample_and_linears_where_golden_magnitude_does_not(resnet):
    standard = sm.criteria.weight_norm(
        resnet.model, select=sm.tracing_rules("standard", "weight_norm", "channel", resnet.model).select
    )
    paper = sm.criteria.weight_norm(resnet.model, select=resnet.rules("weight_norm", "channel").select)
    assert set(standard) - set(paper) == {"layer1.0.downsample.0.weight"}
    assert not any(name.startswith("fc") for name in standard)


def test_standard_loss_is_cross_entropy_on_logits_where_golden_softmaxes_twice(resnet):
    worst = sm.hardest_samples(resnet.model, resnet.data.train, group=0, n=7)
    paper, standard = (
        resnet.rules("gradient", "channel"),
        sm.tracing_rules("standard", "gradient", "channel", resnet.model),
    )
    double = sm.criteria.gradient(resnet.model, worst, select=paper.select, loss=paper.loss)
    plain = sm.criteria.gradient(resnet.model, worst, select=standard.select, loss=standard.loss)
    model = TinyResNet()
    model.load_state_dict(resnet.model.state_dict())
    batch = worst.batch()
    nn.functional.cross_entropy(model.eval()(batch.inputs), batch.y).backward()
    expected = model.conv1.weight.grad.flatten(1).norm(dim=1)
    torch.testing.assert_close(plain["conv1.weight"], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(plain["conv1.weight"], double["conv1.weight"], rtol=0.01)


def test_standard_noise_is_normal_where_golden_threshold_noise_is_uniform(resnet):
    assert resnet.rules("weight_norm", "weight").noise == "uniform"
    units = resnet.threshold_units(0.5, largest=True)
    before = {name: p.detach().clone() for name, p in resnet.model.named_parameters()}
    for noise, is_positive in (("uniform", True), ("normal", False)):
        edit = sm.edits.random_noise(units, 0.1, noise=noise, seed=3)
        changes = torch.cat(
            [(v - before[k])[v != before[k]] for k, v in sm.edits.edited_tensors(resnet.model, edit).items()]
        )
        assert bool((changes > 0).all()) is is_positive
        assert changes.abs().max() < (0.1001 if noise == "uniform" else 1)
