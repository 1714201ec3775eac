"""Pruning masks: which units are pruned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import spurious_memorization as sm
from spurious_memorization.training.masks import parameter_masks

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("mask", ["gradient", "magnitude-smallest", "magnitude-largest", "random"])
@pytest.mark.parametrize("unit", ["channel", "weight"])
def test_masks(mask: Any, unit: Any, model: torch.nn.Module, data: sm.Dataset) -> None:
    select = sm.Selection(unit=unit)
    units = sm.pruned_units(model, mask, 0.1, data.train, select=select, seed=3)
    scores = {
        "gradient": lambda: sm.criteria.gradient(model, data.train, select=select),
        "random": lambda: sm.criteria.random(model, select=select, seed=3),
    }.get(mask, lambda: sm.criteria.weight_norm(model, select=select))()
    n = int(np.ceil(0.1 * scores.n))
    flat = torch.cat([values.flatten() for values in scores.values()]).sort(descending=mask != "magnitude-smallest")
    chosen = torch.tensor([float(scores[name].flatten()[index]) for name, index in units])
    torch.testing.assert_close(chosen, flat.values[:n])
    masks = parameter_masks(model, units)
    pruned = sm.edits.edited(model, sm.edits.zero(units)).state_dict()
    for name, value in model.named_parameters():
        torch.testing.assert_close(pruned[name], value.detach() * masks.get(name, torch.ones(())))


def test_no_mask(model: torch.nn.Module) -> None:
    assert parameter_masks(model, sm.pruned_units(model, "none", 0.5)) == {}
    assert parameter_masks(model, sm.pruned_units(model, "random", 0.0)) == {}


def test_masks_have_the_layout_of_their_parameters(model: torch.nn.Module) -> None:
    model = model.to(memory_format=torch.channels_last)
    select = sm.Selection(unit="weight")
    units = sm.pruned_units(model, "magnitude-smallest", 0.3, select=select)
    for name, mask in parameter_masks(model, units).items():
        parameter = model.get_parameter(name)
        assert mask.stride() == parameter.stride()
        largest = parameter.abs()[mask == 0].max()
        assert bool((parameter.abs()[mask == 1] > largest).all()) or len(parameter_masks(model, units)) > 1
    assert sum(int((mask == 0).sum()) for mask in parameter_masks(model, units).values()) == len(units)
