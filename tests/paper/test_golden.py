"""The research code's answers on two small networks, met with the `paper` settings.

Sizes and fractions are read from the files' keys.
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from golden_networks import TOLERANCE, Golden, TinyResNet, close
from torch import nn

import spurious_memorization as sm


def test_golden_group_accuracy(golden):
    assert golden.group_accuracies() == [close(golden.expected["group_accuracy"])]
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
    edits = []
    for match, _ in cases:
        _, units = largest_channels(resnet, int(match[1]))
        edits.append(sm.edits.zero(units) if match[2] == "zero" else sm.edits.rewind(units, resnet.older))
    _, *found = resnet.group_accuracies(edits)
    for (match, expected), accuracy in zip(cases, found, strict=True):
        assert accuracy == close(expected), match[0]


def test_golden_gradient_by_group(resnet):
    edits, accuracies = [], []
    for group, expected in resnet.expected["gradient"].items():
        rules = resnet.rules("gradient", "channel")
        worst_key = next(key for key in expected if key.startswith("worst_"))
        n = int(re.fullmatch(r"worst_(\d+)_sample_ids", worst_key)[1])
        hardest = sm.hardest_samples(resnet.model, resnet.data.train, group=int(group), n=n, loss=rules.loss)
        assert hardest.index.tolist() == expected[worst_key]
        scores = sm.criteria.gradient(resnet.model, hardest, select=rules.select, loss=rules.loss)
        for key, value in expected.items():
            if match := re.fullmatch(r"top(\d+)", key):
                assert_same_channels(named(scores, sm.top(scores, int(match[1]))), value)
            elif match := re.fullmatch(r"top(\d+)_zero_group_accuracy", key):
                edits.append(sm.edits.zero(sm.top(scores, int(match[1]))))
                accuracies.append(close(value))
    assert edits
    assert resnet.group_accuracies(edits)[1:] == accuracies


def test_golden_thresholds(golden):
    cases = golden.expected["threshold"]
    assert cases
    edits = []
    for name, expected in cases.items():
        order, fraction, kind = name.split("_")
        units = golden.threshold_units(float(fraction), largest=order == "largest")
        edits.append(sm.edits.zero(units) if kind == "zero" else sm.edits.rewind(units, golden.older))
        chosen = {k: len(v) for k, v in units.by_name().items()}
        as_stored = {k.replace("fc.0.", "fc.").replace("head.0.", "head."): v for k, v in expected["changed"].items()}
        assert chosen == {k: v for k, v in as_stored.items() if v}, name
    _, *found = golden.group_accuracies(edits)
    for (name, expected), accuracy in zip(cases.items(), found, strict=True):
        assert accuracy == close(expected["group_accuracy"]), name


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
    hardest = sm.hardest_samples(resnet.model, resnet.data.train, group=0, n=7)
    paper, standard = (
        resnet.rules("gradient", "channel"),
        sm.tracing_rules("standard", "gradient", "channel", resnet.model),
    )
    double = sm.criteria.gradient(resnet.model, hardest, select=paper.select, loss=paper.loss)
    plain = sm.criteria.gradient(resnet.model, hardest, select=standard.select, loss=standard.loss)
    model = TinyResNet()
    model.load_state_dict(resnet.model.state_dict())
    batch = hardest.batch()
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
