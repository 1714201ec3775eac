"""lisa: who is mixed with whom, and the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_training import batches, begun

import spurious_memorization as sm
from spurious_memorization.training.objectives.lisa import Lisa


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_partners(probability: float, data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun(f"lisa:same_label={probability}", data, model, trained)
    assert isinstance(objective, Lisa)
    objective.begin_epoch(1)
    drawn = [(int(one), objective.partner(int(one))) for one in np.repeat(data.train.index, 5)]
    assert {data.split[partner] for _, partner in drawn} == {"train"}
    same_label = [data.y[one] == data.y[partner] for one, partner in drawn]
    same_attribute = [data.a[one] == data.a[partner] for one, partner in drawn]
    assert same_label == [not same for same in same_attribute]
    assert abs(np.mean(same_label) - probability) < 0.12
    assert len({partner for _, partner in drawn}) > len(data.train) / 2


def test_a_sample_without_a_fitting_group_has_a_partner_of_its_own(
    data: sm.Dataset, model: torch.nn.Module, trained: sm.Run
) -> None:
    alone = data.leaving_out(data.train.index[data.train.g != 0])
    objective = begun("lisa", data, model, trained)
    assert isinstance(objective, Lisa)
    object.__setattr__(objective.training, "data", alone)
    objective.begin_epoch(1)
    assert {int(data.g[objective.partner(int(one))]) for one in alone.train.index} == {0}


def test_the_loss_is_that_of_mixed_labels(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("lisa:same_label=0,alpha=2", data, model, trained, augment=False)
    assert isinstance(objective, Lisa)
    batch = batches(data, 10)[0]
    objective.begin_epoch(1)
    partners = data.train.at([objective.partner(int(one)) for one in batch.index])
    share = torch.from_numpy(objective.rng.beta(2, 2, 10)).float()
    objective.begin_epoch(1)
    found = objective.loss(batch.inputs, batch.y, batch.index)
    other = partners.batch()
    inputs = share.view(-1, 1, 1, 1) * batch.inputs + (1 - share).view(-1, 1, 1, 1) * other.inputs
    labels = share[:, None] * F.one_hot(batch.y, 2) + (1 - share)[:, None] * F.one_hot(other.y, 2)
    torch.testing.assert_close(found, F.cross_entropy(model(inputs), labels))
    groups = data.g[objective.samples(1).index]
    assert (np.bincount(groups, minlength=4) > 0).all()
