"""The methods of discovery on made-up samples whose minority is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

import spurious_memorization as sm
from spurious_memorization.discovery.candidates import auroc, consensus, is_atypical, stability
from spurious_memorization.discovery.clusters import error_mixture_scores, small_cluster_scores
from spurious_memorization.discovery.eiil import environment_scores
from spurious_memorization.discovery.xrm import balanced_loss, twin_answers, unlike_by_twins


def two_features(n: int, seed: int) -> tuple[torch.Tensor, NDArray[np.int64], NDArray[np.int64]]:
    """A weak feature of the label and a strong one of the attribute, which goes with the label in 9 of 10 samples."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < 0.9, y, 1 - y)
    x = np.stack([2 * y - 1 + 2.5 * rng.normal(size=n), 2 * a - 1 + 0.2 * rng.normal(size=n)], 1)
    return torch.from_numpy(x).float(), y, a


def test_eiil_maximizes_the_penalty_as_automatic_differentiation_does() -> None:
    rng = np.random.default_rng(0)
    logits, y = torch.from_numpy(rng.normal(size=(60, 3))), torch.from_numpy(rng.integers(0, 3, 60))
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(60, generator=generator, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.01)
    for _ in range(30):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        losses = F.cross_entropy(logits * scale, y, reduction="none")
        q = weight.sigmoid()
        slopes = [torch.autograd.grad((p * losses).mean(), scale, create_graph=True)[0] for p in (q, 1 - q)]
        optimizer.zero_grad()
        (-sum(slope**2 for slope in slopes)).backward()
        optimizer.step()
    expected = weight.detach().sigmoid().numpy()
    found = environment_scores(logits.softmax(1).numpy(), y.numpy(), steps=30, lr=0.01, seed=5)
    wrong = 1 - logits.softmax(1).numpy()[np.arange(60), y.numpy()]
    worse = (expected @ wrong) / expected.sum() > ((1 - expected) @ wrong) / (1 - expected).sum()
    np.testing.assert_allclose(found, expected if worse else 1 - expected, rtol=1e-8)


def test_small_clusters_of_a_class_score_high() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], 200)
    rare = np.arange(400) % 10 == 0
    centers = np.stack([4 * y, np.where(rare, 5.0, 0.0), np.zeros(400)], 1)
    features = centers + rng.normal(scale=0.5, size=(400, 3))
    scores = small_cluster_scores(features, y, np.arange(400) % 4 > 0, 4, seed=0)
    assert roc_auc_score(rare, scores) > 0.99
    assert scores[rare].mean() == pytest.approx(1 - 1 / 15, abs=0.01)
    assert small_cluster_scores(features[:3], y[:3], np.ones(3, bool), 4, 0).tolist() == [0, 0, 0]


def test_slices_with_many_errors_score_high() -> None:
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1], 200)
    rare = np.arange(400) % 8 == 0
    features = np.stack([rng.normal(size=400), np.where(rare, 3.0, 0.0) + rng.normal(size=400)], 1)
    wrong = np.where(rare, 0.8, 0.1) + 0.05 * rng.random(400)
    scores = error_mixture_scores(features, y, wrong, np.ones(400, bool), 4, seed=0)
    assert roc_auc_score(rare, scores) > 0.99
    assert scores[rare].mean() > 0.7
    assert scores[~rare].mean() < 0.25


@pytest.mark.slow
def test_twins_come_to_disagree_with_the_labels_of_the_minority() -> None:
    x, y, a = two_features(600, seed=3)
    data = sm.from_tensors(x, y, a, ["train"] * 500 + ["test"] * 100)
    config = sm.TrainSettings(lr=0.1, optimizer="sgd", batch_size=50, seed=1)
    torch.manual_seed(0)
    twins = [torch.nn.Linear(2, 2) for _ in range(2)]
    answers = twin_answers(twins, data, config, 40, sm.TrainExecution())
    assert answers.shape == (2, 600)
    unlike = unlike_by_twins(answers)
    np.testing.assert_allclose(unlike, np.max(1 - answers, axis=0))
    for part in (slice(0, 500), slice(500, 600)):
        assert roc_auc_score(a[part] != y[part], unlike[part]) > 0.95
    with torch.no_grad():
        np.testing.assert_allclose(
            twins[0](x).softmax(1)[torch.arange(600), torch.from_numpy(y)], answers[0], atol=1e-6
        )
    torch.manual_seed(0)
    again = [torch.nn.Linear(2, 2) for _ in range(2)]
    np.testing.assert_array_equal(twin_answers(again, data, config, 40, sm.TrainExecution()), answers)


def test_the_loss_of_the_twins_weighs_classes_alike() -> None:
    logits, y = torch.randn(10, 3), torch.tensor([0] * 7 + [2] * 3)
    expected = F.cross_entropy(logits[:7], y[:7]) + F.cross_entropy(logits[7:], y[7:])
    torch.testing.assert_close(balanced_loss(logits, y), expected)


def test_consensus_is_the_mean_rank_within_a_class() -> None:
    rng = np.random.default_rng(0)
    y, scores = np.array([0, 0, 0, 1, 1]), [rng.random(5), rng.random(5)]
    expected = np.zeros(5)
    for label, n in ((0, 3), (1, 2)):
        expected[y == label] = np.mean([(rankdata(s[y == label]) - 0.5) / n for s in scores], axis=0)
    np.testing.assert_allclose(consensus(scores, y), expected)


def test_atypical_samples_by_threshold_and_by_cut() -> None:
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    score = np.array([0.1, 0.2, 0.6, 0.9, 0.05, 0.06, 0.4, 0.45])
    assert is_atypical("xrm", score, y).tolist() == [False, False, True, True, False, False, False, False]
    assert is_atypical("clusters", score, y).tolist() == [False, False, True, True, False, False, True, True]
    assert not is_atypical("clusters", np.full(8, 0.3), y).any()
    assert not is_atypical("xrm", np.full(8, np.nan), y).any()


def test_stability_counts_seeds_that_disagree() -> None:
    y = np.array([0, 0, 1, 1])
    one, other = np.array([0.9, 0.1, 0.8, 0.2]), np.array([0.9, 0.6, 0.4, 0.2])
    frame = stability({"xrm": [one, other], "eiil": [one, one]}, y).set_index("method")
    assert frame.loc["xrm", "n_unsure"] == 2
    assert frame.loc["eiil", "n_unsure"] == 0
    assert frame.loc["eiil", "rank_correlation_seeds"] == pytest.approx(1)
    assert frame["n_atypical"].tolist() == [2, 2]


def test_auroc_of_nothing_is_not_a_number() -> None:
    assert np.isnan(auroc(np.arange(4.0), np.zeros(4, bool)))
    assert auroc(np.array([1.0, 2.0, np.nan, 4.0]), np.array([False, False, True, True])) == 1.0
