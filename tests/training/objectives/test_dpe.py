"""dpe: the head, the loss of a member, and the network as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from tiny_training import settings

import spurious_memorization as sm
from spurious_memorization.networks.prototypes import PrototypeEnsemble
from spurious_memorization.training.heads import Features
from spurious_memorization.training.objectives.dpe import DpeSettings, balanced_subset, fit_ensemble, member_loss

Capture = pytest.CaptureFixture[str]


def test_the_head_is_the_mean_of_its_members() -> None:
    torch.manual_seed(1)
    head = PrototypeEnsemble(6, 3, 4).double()
    head.scales.data = torch.tensor([1.0, -2.0, 3.0, 0.5]).double()
    features = torch.randn(5, 6).double()
    probabilities = np.zeros((5, 3))
    for scale, prototypes in zip(head.scales.tolist(), head.prototypes.detach().numpy(), strict=True):
        for row, one in enumerate(features.numpy()):
            one = (one - one.mean()) / one.std(ddof=1)
            one = one / np.linalg.norm(one)
            distances = [np.linalg.norm(one - p / np.linalg.norm(p)) for p in prototypes]
            powers = np.exp(-abs(scale) * np.array(distances))
            probabilities[row] += powers / powers.sum() / 4
    np.testing.assert_allclose(head(features).softmax(1).detach().numpy(), probabilities, rtol=1e-9)


def test_the_loss_of_a_member_by_loops() -> None:
    rng = np.random.default_rng(3)
    options = DpeSettings(entropic_scale=7, length_penalty=2, similarity_penalty=50)
    prototypes, earlier = rng.normal(size=(2, 5)), rng.normal(size=(3, 2, 5))
    features, y, scale = rng.normal(size=(8, 5)), np.arange(8) % 2, 1.5
    losses = []
    for one, label in zip(features, y, strict=True):
        logits = [-7 * scale * np.linalg.norm(one / np.linalg.norm(one) - p / np.linalg.norm(p)) for p in prototypes]
        losses.append(np.log(np.exp(logits).sum()) - logits[label])
    lengths = np.mean([p @ p for p in prototypes])
    similarity = np.mean([sum(e[k] @ prototypes[k] for e in earlier) / (5 - 1) / (3 + 1) for k in range(2)])
    expected = np.mean(losses) + 2 * lengths + 50 * abs(similarity)
    tensors = [torch.from_numpy(part) for part in (prototypes, np.array([scale]), earlier, features, y)]
    assert float(member_loss(*tensors, options)) == pytest.approx(expected)


def test_each_member_has_a_balanced_subset_of_its_own() -> None:
    g, rng = np.repeat([0, 1, 2, 3], [30, 4, 9, 12]), np.random.default_rng(0)
    one, other = balanced_subset(g, rng), balanced_subset(g, rng)
    assert np.bincount(g[one]).tolist() == [4, 4, 4, 4]
    assert set(one) != set(other)


def test_members_learn_separable_classes_and_differ() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    features = Features(rng.normal(size=(120, 8)) + 3 * np.stack([y, 1 - y], 1).repeat(4, 1), y, y)
    options = DpeSettings(members=3, member_epochs=20, batch_size=32, similarity_penalty=1e3)
    head = fit_ensemble(features, features, options, 2, seed=1)
    assert (head(torch.from_numpy(features.values).float()).argmax(1).numpy() == y).mean() > 0.95
    again = fit_ensemble(features, features, options, 2, seed=1)
    assert torch.equal(head.prototypes, again.prototypes)
    assert not torch.equal(head.prototypes[0], head.prototypes[1])


@pytest.mark.slow
def test_a_network_with_prototypes_is_a_run_like_any_other(
    squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    text = "dpe:members=4,member_epochs=3"
    run = sm.train(squares, tmp_path / "run", settings(text, start=f"{trained.path}@3"))
    assert run.record.network.prototypes == 4
    assert not run.record.epoch_0_is_trained
    data, network = run.read_data(), run.network(1)
    probabilities = run.predictions(1, "test").to_numpy()
    with torch.no_grad():
        np.testing.assert_allclose(network(data.test.batch().inputs).softmax(1).numpy(), probabilities, atol=1e-5)
    units = sm.parse_units(network, "conv2:1,conv2:3")
    outcomes = sm.evaluate(network, sm.edits.zero(units), data.test)
    edited = sm.edits.edited(network, sm.edits.zero(units)).eval()
    with torch.no_grad():
        np.testing.assert_array_equal(outcomes.after.predicted[0], edited(data.test.batch().inputs).argmax(1).numpy())
    said = tiny.spurmem(capsys, "edit", run.path, "--units", "conv2:1", "--edit", "zero", "--out", tmp_path / "edited")
    assert said.status == 0, said.err
    again = sm.train(squares, tmp_path / "again", settings(text, start=f"{trained.path}@3"))
    assert tiny.same_networks(run, again)
