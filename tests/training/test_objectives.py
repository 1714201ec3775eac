"""Objectives: what each minimizes, against calculations written here, and what each refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import tiny_networks
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from timm.models.vision_transformer import VisionTransformer

import spurious_memorization as sm
from spurious_memorization.networks.features import features_and_logits
from spurious_memorization.networks.running_statistics import repeat_first_pass, statistics
from spurious_memorization.training.objectives.balancing import balanced_draw
from spurious_memorization.training.objectives.dfr import fit_head
from spurious_memorization.training.objectives.find import objective_for
from spurious_memorization.training.objectives.masks import kept
from spurious_memorization.training.objectives.objective import Objective, Training
from spurious_memorization.training.objectives.pruned_contrast import finetuning_loss
from spurious_memorization.training.objectives.settings import (
    DfrSettings,
    PrunedContrastSettings,
    objective_from,
)
from spurious_memorization.training.objectives.tied_dropout import uniform
from spurious_memorization.training.recipes import expanded_objective

Capture = pytest.CaptureFixture[str]


def settings(objective: str, **changes: Any) -> sm.TrainSettings:
    return sm.TrainSettings(**{**tiny.QUICK, "objective": objective, **changes})


def begun(objective: str, data: sm.Dataset, model: torch.nn.Module, run: sm.Run, **changes: Any) -> Objective:
    found = objective_for(Training(run, settings(objective, **changes), data, model))
    found.begin()
    return found


@pytest.fixture
def data(squares: Path) -> sm.Dataset:
    return sm.read_data(squares)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return tiny_networks.small_convnet()


def batches(data: sm.Dataset, size: int = 8) -> list[sm.Batch]:
    return list(data.train.shuffled(0, 1).batches(size))


# ---- settings


def test_text_and_blocks_are_read_alike() -> None:
    text = "pruned-contrast:mask=magnitude-largest,fraction=0.05,refresh=false,layers=conv"
    found = objective_from(text)
    assert isinstance(found, PrunedContrastSettings)
    assert (found.mask, found.fraction, found.refresh, found.layers) == ("magnitude-largest", 0.05, False, ("conv",))
    assert objective_from(json.loads(found.model_dump_json())) == found
    assert objective_from(str(found)) == found
    assert str(objective_from("group-dro")) == "group-dro"
    assert objective_from("dfr:strengths=1+0.1").strengths == (1.0, 0.1)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groupdro", "unknown objective 'groupdro': choose among erm, erm-continue, pruned-contrast"),
        ("group-dro:mask=none", "group-dro has no option 'mask=none': write group-dro:option=value with one of step"),
        ("group-dro:step=-1", "--objective.group-dro.step: Input should be greater than 0 (given: '-1')"),
        ("jtt", "Field required"),
        ("pruned-contrast:fraction=1", "Input should be less than 1"),
        ("pruned-contrast:mask=all", "Input should be 'gradient'"),
    ],
)
def test_bad_objectives_are_refused(text: str, said: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    assert said in tiny.spurmem(capsys, "train", squares, "--objective", text, "--out", tmp_path / "run").error
    assert not (tmp_path / "run").exists()


def test_the_settings_of_the_papers_fine_tuning() -> None:
    def filled(model: torch.nn.Module, **stated: Any) -> PrunedContrastSettings:
        chosen = {"name": "pruned-contrast", **stated}
        found = expanded_objective(sm.TrainSettings(recipe="paper-pruning", objective=chosen), model)
        assert isinstance(found, PrunedContrastSettings)
        return found

    conv = tiny_networks.small_convnet()
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=2)
    paper = filled(conv)
    assert (paper.mask, paper.fraction, paper.contrast) == ("magnitude-smallest", 0.01, "probabilities")
    assert (paper.unit, paper.layers, paper.with_bias) == ("weight", ("conv",), False)
    assert (paper.running_statistics, paper.strictly_beyond, paper.order) == ("dense-pruned-dense", True, "lowest_loss")
    assert (filled(conv, mask="gradient").unit, filled(vit, mask="gradient").unit) == ("channel", "weight")
    assert filled(vit).layers == ("linear",)
    assert filled(conv, contrast="features", layers="conv+linear").layers == ("conv", "linear")
    plain = expanded_objective(sm.TrainSettings(objective="pruned-contrast"), conv)
    assert isinstance(plain, PrunedContrastSettings)
    assert (plain.mask, plain.unit, plain.contrast, plain.running_statistics) == (
        "gradient", "channel", "features", "dense"
    )  # fmt: skip


def test_the_recipe_of_fine_tuning(squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    stated = {"model": tiny.NETWORK, "epochs": 1, "from": f"{trained.path}@2", "objective": "pruned-contrast"}
    run = sm.train(squares, tmp_path / "run", sm.TrainSettings(recipe="paper-pruning", **stated))
    stored = run.record.settings
    assert (stored["lr"], stored["batch_size"], stored["plateau_patience"], stored["schedule"]) == (
        2e-4, 100, 1, "plateau"
    )  # fmt: skip
    assert stored["loss"] == "cross_entropy_on_probabilities"
    assert stored["objective"]["mask"] == "magnitude-smallest"


# ---- pruned-contrast


def test_nt_xent_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 5, 3))
    views = np.concatenate([one, two])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    losses = []
    for i in range(10):
        others = [np.exp(views[i] @ views[k] / 0.3) for k in range(10) if k != i]
        losses.append(-np.log(np.exp(views[i] @ views[(i + 5) % 10] / 0.3) / sum(others)))
    assert float(sm.nt_xent(torch.tensor(one), torch.tensor(two), 0.3)) == pytest.approx(np.mean(losses), rel=1e-5)


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
    masks = kept(model, units)
    pruned = sm.edits.edited(model, sm.edits.zero(units)).state_dict()
    for name, value in model.named_parameters():
        torch.testing.assert_close(pruned[name], value.detach() * masks.get(name, torch.ones(())))


def test_no_mask(model: torch.nn.Module) -> None:
    assert kept(model, sm.pruned_units(model, "none", 0.5)) == {}
    assert kept(model, sm.pruned_units(model, "random", 0.0)) == {}


def test_masks_have_the_layout_of_their_parameters(model: torch.nn.Module) -> None:
    model = model.to(memory_format=torch.channels_last)
    select = sm.Selection(unit="weight")
    units = sm.pruned_units(model, "magnitude-smallest", 0.3, select=select)
    for name, mask in kept(model, units).items():
        parameter = model.get_parameter(name)
        assert mask.stride() == parameter.stride()
        largest = parameter.abs()[mask == 0].max()
        assert bool((parameter.abs()[mask == 1] > largest).all()) or len(kept(model, units)) > 1
    assert sum(int((mask == 0).sum()) for mask in kept(model, units).values()) == len(units)


@pytest.mark.parametrize("statistics_of", ["dense", "dense-pruned-dense"])
@pytest.mark.parametrize("contrast", ["features", "logits", "probabilities"])
def test_a_step_against_three_passes(
    statistics_of: str, contrast: str, model: torch.nn.Module, data: sm.Dataset
) -> None:
    batch = batches(data, 12)[0]
    units = sm.pruned_units(model, "magnitude-largest", 0.1, select=sm.Selection(unit="weight"))
    masks = kept(model, units)
    options: Any = {"running_statistics": statistics_of, "contrast": contrast, "temperature": 0.4}
    ours, theirs = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    loss = finetuning_loss(ours, masks, batch.inputs, batch.y, PrunedContrastSettings(**options))
    loss.backward()

    def views(network: torch.nn.Module, changed: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        features, logits = features_and_logits(network, batch.inputs, changed)
        return {"features": features, "logits": logits, "probabilities": logits.softmax(1)}[contrast]

    with torch.no_grad():
        fixed = views(theirs)
    if statistics_of == "dense":
        after_dense = copy.deepcopy(theirs.state_dict())
    pruned = views(theirs, {name: theirs.get_parameter(name) * mask for name, mask in masks.items()})
    dense = views(theirs)
    own = torch.func.functional_call(copy.deepcopy(theirs), dict(theirs.named_parameters()), (batch.inputs,))
    expected = sm.nt_xent(fixed, pruned, 0.4) + sm.nt_xent(dense, pruned.detach(), 0.4)
    expected = expected + 0.2 * F.cross_entropy(own, batch.y)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs.get_parameter(name).grad, rtol=1e-4, atol=1e-6)
    stored = after_dense if statistics_of == "dense" else theirs.state_dict()
    for name, value in ours.named_buffers():
        torch.testing.assert_close(value, stored[name])


def test_a_third_pass_without_momentum(model: torch.nn.Module, data: sm.Dataset) -> None:
    model.bn1.momentum = None
    first, second = (batch.inputs for batch in batches(data, 12)[:2])
    two, three = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    before = statistics(two)
    two(first)
    after = statistics(two)
    two(second)
    repeat_first_pass(two, before, after)
    for inputs in (first, second, first):
        three(inputs)
    for name, value in two.named_buffers():
        torch.testing.assert_close(value, three.state_dict()[name])


def test_the_gradient_mask_is_taken_on_the_worst_samples(
    trained: sm.Run, squares: Path, tmp_path: Path, data: sm.Dataset
) -> None:
    stated = settings("pruned-contrast:n_hardest=5,fraction=0.2", epochs=1, **{"from": f"{trained.path}@2"})
    run = sm.train(squares, tmp_path / "run", stated, execution=sm.TrainExecution(keep_pruned=True))
    start = trained.network(2)
    worst = sm.hardest_samples(start, data.train, n=5)
    expected = kept(start, sm.pruned_units(start, "gradient", 0.2, worst))
    dense, pruned = run.state(1), sm.Run(run.path / "pruned").state(1)
    for name, value in dense.items():
        assert torch.equal(pruned[name], value * expected[name] if name in expected else value)
    assert any((mask == 0).any() for mask in expected.values())
    history = sm.Run(run.path / "pruned").history()
    assert sorted(history["epoch"].unique()) == [1]
    assert run.record.training_cost is not None
    assert run.record.training_cost.sample_passes == 2 * 40 + 5


def test_a_fixed_mask_stays(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    def zeros(refresh: str) -> list[torch.Tensor]:
        objective = f"pruned-contrast:mask=random,fraction=0.2,refresh={refresh}"
        stated = settings(objective, epochs=2, **{"from": f"{trained.path}@3"})
        run = sm.train(squares, tmp_path / refresh, stated, execution=sm.TrainExecution(keep_pruned=True))
        pruned = sm.Run(run.path / "pruned")
        return [torch.cat([(v == 0).flatten() for k, v in pruned.state(e).items() if "conv" in k]) for e in (1, 2)]

    first, second = zeros("false")
    assert torch.equal(first, second)
    first, second = zeros("true")
    assert not torch.equal(first, second)


def test_the_control_is_pruned_contrast_without_its_contrast(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    start = {"from": f"{trained.path}@2", "epochs": 2}
    control = sm.train(squares, tmp_path / "control", settings("erm-continue", **start))
    without = settings("pruned-contrast:contrast_weight=0,mask=none", **start)
    assert tiny.same_networks(control, sm.train(squares, tmp_path / "without", without))
    assert control.record.training_cost is not None
    assert (control.record.training_cost.sample_passes, control.record.training_cost.sample_passes_before) == (80, 80)
    assert control.record.start is not None
    assert (control.record.start.run, control.record.start.epoch) == (str(trained.path), 2)


# ---- rivals


def test_group_dro_against_plain_numpy(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("group-dro:step=0.3,adjustment=2", data, model, trained)
    weights, sizes = np.full(4, 1 / 4), np.bincount(data.train.g)
    absent = 0
    for batch in batches(data, 6)[:5]:
        found = float(objective.loss(batch.inputs, batch.y, batch.index).detach())
        probabilities = model(batch.inputs).softmax(1).detach().numpy().astype(float)
        losses = -np.log(probabilities[np.arange(len(batch.y)), batch.y])
        groups = data.g[batch.index.numpy()]
        means = np.zeros(4)
        for group in range(4):
            here = groups == group
            if here.any():
                means[group] = losses[here].mean() + 2 / np.sqrt(sizes[group])
                weights[group] *= np.exp(0.3 * means[group])
            else:
                absent += 1
        weights /= weights.sum()
        assert found == pytest.approx(float(weights @ means), rel=1e-5)
        np.testing.assert_allclose(objective.state()["weights"], weights, rtol=1e-5)
    assert absent
    assert weights.max() > 0.3


def test_jtt_upweights_the_errors_of_the_stored_predictions(data: sm.Dataset, trained: sm.Run) -> None:
    objective = begun(f"jtt:errors_of={trained.path}@1,upweight=4", data, trained.network(1), trained)
    with torch.no_grad():
        answers = trained.network(1)(data.train.batch().inputs).argmax(1).numpy()
    wrong = data.train.index[answers != data.train.y]
    assert 0 < len(wrong) < len(data.train)
    counts = pd.Series(objective.samples(1).index).value_counts()
    assert {i: counts[i] for i in data.train.index} == {i: 4 if i in wrong else 1 for i in data.train.index}
    assert objective.samples(1).index.tolist() != objective.samples(2).index.tolist()
    assert objective.passes(1) == len(data.train) + 3 * len(wrong)


def test_jtt_without_errors_or_with_those_on_other_data(
    data: sm.Dataset, trained: sm.Run, tmp_path: Path, squares: Path, capsys: Capture
) -> None:
    perfect = tiny.copied(trained, tmp_path / "perfect")
    sure = np.eye(2, dtype=np.float32)[data.train.y]
    perfect.save_predictions(1, "train", data.train.index, sure)
    flags = ("--model", tiny.NETWORK, "--out", tmp_path / "run", "--objective")
    said = tiny.spurmem(capsys, "train", squares, *flags, f"jtt:errors_of={perfect.path}@1")
    assert "makes no error on the training samples in epoch 1" in said.error
    other = tiny.make_images(tmp_path / "other", train=10)
    said = tiny.spurmem(capsys, "train", other, *flags, f"jtt:errors_of={trained.path}@1")
    assert "was made with other data" in said.error
    assert not (tmp_path / "run").exists()


def test_dfr_against_plain_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    y, a = np.repeat([0, 1], 60), np.concatenate([np.arange(60) % 5 == 0, np.arange(60) % 3 > 0]).astype(int)
    g = 2 * y + a
    features = rng.normal(size=(120, 6)) * [1, 5, 1, 1, 0.1, 1] + np.stack([y, 3 * a, y, a, 0 * y, 0 * y], axis=1)
    some = (features[::2], y[::2], g[::2])
    head = fit_head(features, y, g, some, DfrSettings(draws=4, strengths=(0.2,)), seed=5)
    standard = (features - features.mean(0)) / features.std(0)
    smallest, draws = np.bincount(g).min(), np.random.default_rng([5, 0xDF12])
    coefficients, intercepts = [], []
    for _ in range(4):
        drawn = np.concatenate([draws.permutation(np.flatnonzero(g == k))[:smallest] for k in range(4)])
        fit = LogisticRegression(l1_ratio=1, C=0.2, solver="liblinear", random_state=0, max_iter=1000)
        fit.fit(standard[drawn], y[drawn])
        coefficients.append(fit.coef_[0])
        intercepts.append(fit.intercept_[0])
    expected = standard @ np.mean(coefficients, axis=0) + np.mean(intercepts)
    found = features @ head.weight.T + head.bias
    np.testing.assert_allclose(found[:, 1] - found[:, 0], expected, rtol=1e-6, atol=1e-8)
    assert (np.mean(coefficients, axis=0) == 0).any() or np.abs(coefficients).max() > 0


def test_dfr_takes_the_strength_that_the_selecting_samples_prefer() -> None:
    rng = np.random.default_rng(2)
    y, a = np.arange(80) % 2, np.arange(80) // 2 % 2
    features = np.stack([y + 0.1 * rng.normal(size=80), rng.normal(size=80)], axis=1)
    g = 2 * y + a
    heads = {
        strength: fit_head(features, y, g, (features, y, g), DfrSettings(strengths=(strength,)))
        for strength in (1e-6, 1.0)
    }
    assert not heads[1e-6].weight.any()  # the penalty leaves nothing
    both = fit_head(features, y, g, (features, y, g), DfrSettings(strengths=(1.0, 1e-6)))
    assert both.strength == 1.0
    backwards = fit_head(features, y, g, (-features + 1, y, g), DfrSettings(strengths=(1.0, 1e-6)))
    assert backwards.strength == 1e-6


def test_dfr_as_a_run(squares: Path, tmp_path: Path, trained: sm.Run, data: sm.Dataset) -> None:
    run = sm.train(squares, tmp_path / "run", settings("dfr", **{"from": f"{trained.path}@3"}))
    assert run.epochs() == [0, 1]
    before, after = run.state(0), run.state(1)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight", "fc.bias"}
    fitting, _ = sm.val_halves(data)
    assert run.record.training_cost is not None
    assert run.record.training_cost.sample_passes == len(fitting)
    files = {name: (run.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}
    again = sm.train(squares, run.path, settings("dfr", **{"from": f"{trained.path}@3"}), resume=True)
    assert files == {name: (again.path / name).stat().st_mtime_ns for name in tiny.files_below(run.path)}


def test_dfr_with_three_classes(tmp_path: Path) -> None:
    folder = tiny.make_images(tmp_path / "three", classes=3, train=10)
    erm = sm.train(folder, tmp_path / "erm", settings("erm", epochs=1))
    run = sm.train(folder, tmp_path / "run", settings("dfr:draws=2", **{"from": str(erm.path)}))
    assert run.state(1)["fc.weight"].shape == (3, 12)


def test_reweighting(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("reweighting:by=group", data, model, trained)
    counts = np.bincount(data.train.g)
    total = torch.zeros(4)
    for batch in batches(data, 10):
        losses = F.cross_entropy(model(batch.inputs), batch.y, reduction="none").detach()
        weights = torch.tensor(len(data.train) / 4 / counts[data.g[batch.index]], dtype=torch.float32)
        total.index_add_(0, torch.tensor(data.g[batch.index]), weights)
        found = objective.loss(batch.inputs, batch.y, batch.index).detach()
        torch.testing.assert_close(found, (weights * losses).mean())
    torch.testing.assert_close(total, torch.full((4,), 10.0))


def test_balanced_draws_are_balanced(data: sm.Dataset) -> None:
    drawn = np.concatenate([balanced_draw(data, "group", 0, epoch).g for epoch in range(200)])
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 1 / 4, atol=0.02)
    assert len(balanced_draw(data, "class", 0, 1)) == len(data.train)


def test_subsampling_keeps_the_smallest_size(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("subsampling", data, model, trained)
    kept_ones = {epoch: np.unique(objective.samples(epoch).index) for epoch in (1, 2)}
    assert np.bincount(data.g[kept_ones[1]]).tolist() == [4, 4, 4, 4]
    assert kept_ones[1].tolist() == kept_ones[2].tolist()
    assert len(objective.samples(1)) == len(data.train)
    assert objective.samples(1).index.tolist() != objective.samples(2).index.tolist()


def test_a_sample_that_comes_up_again_is_augmented_anew(data: sm.Dataset) -> None:
    once = next(iter(data.train.at([0, 1]).augmented_batches(2, seed=0, epoch=1))).inputs
    thrice = list(data.train.at([0, 1, 0, 0]).augmented_batches(2, seed=0, epoch=1))
    torch.testing.assert_close(thrice[0].inputs, once)
    assert not torch.equal(thrice[1].inputs[0], once[0])
    assert not torch.equal(thrice[1].inputs[1], thrice[1].inputs[0])


def test_example_tied_dropout(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("example-tied-dropout:generalizing=0.25,memorizing=0.5", data, model, trained)
    batch, seen = batches(data, 20)[0], []
    hook = model.relu1.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    for _ in range(2):
        objective.loss(batch.inputs, batch.y, batch.index)
    hook.remove()
    active = (seen[0] != 0).flatten(2).any(2)  # [samples, channels]
    assert torch.equal(active, (seen[1] != 0).flatten(2).any(2))
    assert bool(active[:, :2].all())
    assert 0.3 < active[:, 2:].float().mean() < 0.7
    assert len({tuple(row) for row in active.tolist()}) > 10
    deployed = objective.deployed().eval()
    with torch.no_grad():
        out = deployed.bn1(deployed.conv1(batch.inputs))
    assert not out[:, 2:].any()
    assert bool((out[:, :2] != 0).flatten(2).any(2).all())
    assert model.bn1.weight.all()


def test_tied_draws_are_uniform() -> None:
    drawn = uniform(np.arange(300), 200, seed=7)
    assert np.histogram(drawn, 10, (0, 1))[0].min() > 5600
    np.testing.assert_array_equal(uniform(np.array([5, 2]), 200, 7), drawn[[5, 2]])
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.02


# ---- every objective


OBJECTIVES = (
    "erm-continue",
    "pruned-contrast:fraction=0.1",
    "pruned-contrast:mask=random,fraction=0.1,refresh=false,running_statistics=dense-pruned-dense",
    "pruned-contrast:mask=gradient,fraction=0.1,refresh=false",
    "reweighting",
    "balanced-sampling",
    "subsampling",
    "group-dro:step=0.5",
    "jtt",
    "example-tied-dropout",
)


@pytest.mark.parametrize("text", OBJECTIVES)
def test_killed_and_resumed(text: str, squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    import os
    import signal

    text = f"jtt:errors_of={tmp_path / 'start'}@1,upweight=3" if text == "jtt" else text
    tiny.copied(trained, tmp_path / "start")
    start = {"from": str(tmp_path / "start")} if text.startswith(("erm-", "pruned")) else {}
    stated = settings(text, **start)

    def child() -> None:
        def killed(state: dict[str, Any], file: Path) -> None:
            torch_save(state, file)
            if state["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        torch_save = torch.save
        torch.save = killed  # type: ignore[assignment]
        sm.train(squares, tmp_path / "run", stated)

    assert tiny.in_child(child) == -signal.SIGKILL
    if text.startswith("jtt"):  # the errors are stored: they must not be looked for again
        (tmp_path / "start" / "predictions").rename(tmp_path / "gone")
    resumed = sm.train(squares, tmp_path / "run", stated, resume=True)
    if text.startswith("jtt"):
        (tmp_path / "gone").rename(tmp_path / "start" / "predictions")
    whole = sm.train(squares, tmp_path / "whole", stated)
    assert tiny.same_networks(resumed, whole)
    pd.testing.assert_frame_equal(resumed.history(), whole.history())
    assert resumed.record.training_cost is not None
    assert whole.record.training_cost is not None
    assert resumed.record.training_cost.sample_passes == whole.record.training_cost.sample_passes
    assert resumed.record.training_cost.sample_passes_before == whole.record.training_cost.sample_passes_before


def test_bf16_and_workers(squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    stated = settings("pruned-contrast", epochs=1, precision="bf16", **{"from": str(trained.path)})
    run = sm.train(squares, tmp_path / "run", stated, execution=sm.TrainExecution(workers=1))
    assert all(bool(value.isfinite().all()) for value in run.state(1).values())


def test_seeds_start_from_the_runs_of_the_same_seeds(
    squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    for seed in (0, 1):
        tiny.copied(trained, tmp_path / "erm" / f"seed_{seed}")
    said = tiny.spurmem(
        capsys, "train", squares, "--model", tiny.NETWORK, "--objective", "erm-continue", "--from",
        f"{tmp_path}/erm@1", "--seeds", "0..1", "--epochs", 1, "--out", tmp_path / "more"
    )  # fmt: skip
    assert said.status == 0, said.err
    for seed in (0, 1):
        record = sm.Run(tmp_path / "more" / f"seed_{seed}").record
        assert record.start is not None
        assert record.start.run == f"{tmp_path}/erm/seed_{seed}"
        assert record.settings["objective"] == {"name": "erm-continue", "cross_entropy_weight": 0.2}


# ---- refusals


def test_a_mask_of_a_whole_layer_is_refused(squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    objective = "pruned-contrast:mask=magnitude-largest,unit=channel,fraction=0.9"
    flags = ("--model", tiny.NETWORK, "--from", trained.path, "--out", tmp_path / "run", "--objective")
    error = tiny.spurmem(capsys, "train", squares, *flags, objective).error
    assert "would prune all 12 channels of conv2: choose a smaller fraction, or another mask" in error
    assert not (tmp_path / "run").exists()
    error = tiny.spurmem(capsys, "train", squares, *flags, "pruned-contrast:fraction=0.9").error
    assert "mask gradient with fraction 0.9 would prune all" in error


def without_group(squares: Path, folder: Path, split: str) -> Path:
    """The images without those of the last group in a split."""
    table = pd.read_csv(squares / "metadata.csv")
    gone = (table["y"] == 1) & (table["a"] == 1) & (table["split"] == split)
    folder.mkdir()
    for file in squares.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "metadata.csv").unlink()
    table[~gone].to_csv(folder / "metadata.csv", index=False)
    return folder


@pytest.mark.parametrize("text", ["reweighting", "balanced-sampling", "subsampling", "group-dro"])
def test_a_group_without_training_samples(text: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = without_group(squares, tmp_path / "data", "train")
    flags = ("--model", tiny.NETWORK, "--epochs", 1, "--out", tmp_path / "run", "--objective")
    error = tiny.spurmem(capsys, "train", folder, *flags, text).error
    assert f"group 'class 1 with color 1' has no training sample, which {text} needs" in error
    assert not (tmp_path / "run").exists()
    assert tiny.spurmem(capsys, "train", folder, *flags, "reweighting:by=class").status == 0


def test_dfr_needs_val_and_every_group_in_it(squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    table = pd.read_csv(squares / "metadata.csv")
    folder = without_group(squares, tmp_path / "data", "val")
    flags = ("--model", tiny.NETWORK, "--objective", "dfr", "--from", trained.path, "--out", tmp_path / "run")
    error = tiny.spurmem(capsys, "train", folder, *flags).error
    assert "group 'class 1 with color 1' has no sample in the half of val that dfr fits on" in error
    table[table["split"] != "val"].to_csv(folder / "metadata.csv", index=False)
    assert "has no val split" in tiny.spurmem(capsys, "train", folder, *flags).error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["erm-continue", "pruned-contrast", "dfr"])
def test_what_continues_needs_a_start(text: str, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    error = tiny.spurmem(capsys, "train", squares, "--objective", text, "--out", tmp_path / "run").error
    assert f"{text} continues a trained network: name it with --from RUN@EPOCH" in error


def test_keep_pruned_is_for_what_prunes(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    error = tiny.spurmem(capsys, "train", squares, "--keep-pruned", "--out", tmp_path / "run").error
    assert "--keep-pruned: erm prunes nothing" in error


# ---- halves of val


def test_the_halves_of_val(data: sm.Dataset) -> None:
    fitting, selecting = sm.val_halves(data)
    assert sorted([*fitting.index, *selecting.index]) == data.val.index.tolist()
    assert np.bincount(fitting.g).tolist() == [1, 1, 1, 1]  # of three a group
    assert np.bincount(selecting.g).tolist() == [2, 2, 2, 2]
    assert sm.val_halves(data)[0].index.tolist() == fitting.index.tolist()


def test_the_selected_epoch_is_the_best_on_these_samples(trained: sm.Run, data: sm.Dataset) -> None:
    _, selecting = sm.val_halves(data)
    worst, average = {}, {}
    for epoch in trained.epochs():
        right = trained.predictions(epoch, "val").loc[selecting.index].to_numpy().argmax(1) == selecting.y
        worst[epoch] = min(right[selecting.g == group].mean() for group in range(4))
        average[epoch] = right.mean()
    assert sm.selected_epoch(trained, selecting, "worst_group_accuracy") == max(worst, key=lambda e: worst[e])
    assert sm.selected_epoch(trained, selecting, "average") == max(average, key=lambda e: average[e])
    with pytest.raises(sm.UserError, match="other samples"):
        sm.selected_epoch(trained, data.val.at([10_000]), "average")
