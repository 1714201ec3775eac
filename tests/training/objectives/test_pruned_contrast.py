"""pruned-contrast: its settings, its loss against three passes, its masks in a run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_networks
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from tiny_training import batches, settings

import spurious_memorization as sm
from spurious_memorization.networks.features import features_and_logits
from spurious_memorization.networks.running_statistics import repeat_first_pass, statistics
from spurious_memorization.training.masks import parameter_masks
from spurious_memorization.training.objectives.pruned_contrast import PrunedContrastSettings, finetuning_loss

Capture = pytest.CaptureFixture[str]


def test_the_settings_of_the_papers_fine_tuning() -> None:
    def filled(model: torch.nn.Module, **recorded: Any) -> PrunedContrastSettings:
        chosen = {"name": "pruned-contrast", **recorded}
        given = sm.TrainSettings(recipe="paper-pruning", objective=chosen)
        found = given.objective.expanded(given.recipe, model)
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
    plain = sm.TrainSettings(objective="pruned-contrast").objective.expanded("standard", conv)
    assert isinstance(plain, PrunedContrastSettings)
    assert (plain.mask, plain.unit, plain.contrast, plain.running_statistics) == (
        "gradient", "channel", "features", "dense"
    )  # fmt: skip


def test_the_recipe_of_fine_tuning(squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    recorded = {"model": tiny.NETWORK, "epochs": 1, "from": f"{trained.path}@2", "objective": "pruned-contrast"}
    run = sm.train(squares, tmp_path / "run", sm.TrainSettings(recipe="paper-pruning", **recorded))
    stored = run.record.settings
    assert (stored["lr"], stored["batch_size"], stored["plateau_patience"], stored["schedule"]) == (
        2e-4, 100, 1, "plateau"
    )  # fmt: skip
    assert stored["loss"] == "cross_entropy_on_probabilities"
    assert stored["objective"]["mask"] == "magnitude-smallest"


@pytest.mark.parametrize("statistics_of", ["dense", "dense-pruned-dense"])
@pytest.mark.parametrize("contrast", ["features", "logits", "probabilities"])
def test_a_step_against_three_passes(
    statistics_of: str, contrast: str, model: torch.nn.Module, data: sm.Dataset
) -> None:
    batch = batches(data, 12)[0]
    units = sm.pruned_units(model, "magnitude-largest", 0.1, select=sm.Selection(unit="weight"))
    masks = parameter_masks(model, units)
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
    recorded = settings("pruned-contrast:n_hardest=5,fraction=0.2", epochs=1, **{"from": f"{trained.path}@2"})
    run = sm.train(squares, tmp_path / "run", recorded, execution=sm.TrainExecution(keep_pruned=True))
    start = trained.network(2)
    worst = sm.hardest_samples(start, data.train, n=5)
    expected = parameter_masks(start, sm.pruned_units(start, "gradient", 0.2, worst))
    dense, pruned = run.state(1), sm.Run(run.path / "pruned").state(1)
    for name, value in dense.items():
        assert torch.equal(pruned[name], value * expected[name] if name in expected else value)
    assert any((mask == 0).any() for mask in expected.values())
    history = sm.Run(run.path / "pruned").history()
    assert sorted(history["epoch"].unique()) == [1]
    assert run.record.training_cost is not None
    assert run.record.training_cost.sample_passes == 2 * 40 + 5


@pytest.mark.slow
def test_a_fixed_mask_stays(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    def zeros(refresh: str) -> list[torch.Tensor]:
        objective = f"pruned-contrast:mask=random,fraction=0.2,refresh={refresh}"
        recorded = settings(objective, epochs=2, **{"from": f"{trained.path}@3"})
        run = sm.train(squares, tmp_path / refresh, recorded, execution=sm.TrainExecution(keep_pruned=True))
        pruned = sm.Run(run.path / "pruned")
        return [torch.cat([(v == 0).flatten() for k, v in pruned.state(e).items() if "conv" in k]) for e in (1, 2)]

    first, second = zeros("false")
    assert torch.equal(first, second)
    first, second = zeros("true")
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_bf16_and_workers(squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    recorded = settings("pruned-contrast", epochs=1, precision="bf16", **{"from": str(trained.path)})
    run = sm.train(squares, tmp_path / "run", recorded, execution=sm.TrainExecution(workers=1))
    assert all(bool(value.isfinite().all()) for value in run.state(1).values())


def test_a_mask_of_a_whole_layer_is_refused(squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    objective = "pruned-contrast:mask=magnitude-largest,unit=channel,fraction=0.9"
    flags = ("--model", tiny.NETWORK, "--from", trained.path, "--out", tmp_path / "run", "--objective")
    error = tiny.spurmem(capsys, "train", squares, *flags, objective).error
    assert "would prune all 12 channels of conv2: choose a smaller fraction, or another mask" in error
    assert not (tmp_path / "run").exists()
    error = tiny.spurmem(capsys, "train", squares, *flags, "pruned-contrast:fraction=0.9").error
    assert "mask gradient with fraction 0.9 would prune all" in error


def test_keep_pruned_is_for_what_prunes(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    error = tiny.spurmem(capsys, "train", squares, "--keep-pruned", "--out", tmp_path / "run").error
    assert "--keep-pruned: erm prunes nothing" in error
