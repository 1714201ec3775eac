"""Directions as units: edits and scores are those of plain hooks on the layer's output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks.build import NetworkSettings, build
from spurious_memorization.networks.directions import read_directions

N = 12
ALL = sm.Selection(tensors=("*.directions",))


class Pair(nn.Module):
    """Gives two results."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x.flatten(2).transpose(1, 2), 0


class WithPair(nn.Module):
    """A layer with two results, between a convolution and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pair, self.head = nn.Conv2d(3, 10, 5, stride=5), Pair(), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pair(self.stem(x))[0].relu().mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: build(NetworkSettings(model="test_vit", n_classes=3, image_size=32)),
    "resnet": lambda: build(NetworkSettings(model="test_resnet", n_classes=3)),
    "pair": WithPair,
}
PLACES = {  # (network, layer): where its units are, and the axis of the channels
    ("vit", "blocks.1"): ("blocks.1", -1),
    ("vit", "blocks.2.mlp.fc2"): ("blocks.2.mlp.fc2", -1),
    ("vit", "patch_embed.proj"): ("patch_embed.proj", 1),
    ("resnet", "layer2"): ("layer2.0", 1),
    ("resnet", "global_pool"): ("global_pool", -1),
    ("pair", "pair"): ("pair", -1),
}


def made(place: tuple[str, str]) -> tuple[nn.Module, nn.Module, Tensor, sm.Samples, str]:
    """The network, the one with directions, the directions, some samples, and where the units are."""
    torch.manual_seed(0)
    name, layer = place
    model = NETWORKS[name]().eval()
    x, y = torch.randn(9, 3, 32, 32), np.arange(9) % 3
    where, axis = PLACES[place]
    shapes: list[tuple[int, ...]] = []
    with model.get_submodule(layer).register_forward_hook(lambda *given: shapes.append(first(given[2]).shape)):
        model(x)
    directions = 3 * torch.randn(N, shapes[0][axis])
    return model, sm.with_directions(model, layer, directions), directions, sm.from_tensors(x, y, y % 2).train, where


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def edited_output(place: tuple[str, str], change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A hook that puts a change, of outputs with channels last, into a layer's output."""
    axis = PLACES[place][1]

    def hook(_module: nn.Module, _inputs: object, output: Any) -> Any:
        new = change(first(output).movedim(axis, -1)).movedim(-1, axis)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return hook


@torch.no_grad()
def losses(model: nn.Module, samples: sm.Samples, layer: str, hook: Callable[..., Any]) -> np.ndarray:
    batch = samples.batch()
    with model.get_submodule(layer).register_forward_hook(hook):
        return F.cross_entropy(model(batch.inputs), batch.y, reduction="none").numpy()


def without(directions: Tensor, numbers: list[int]) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        return x - sum((x @ d)[..., None] * d / (d @ d) for d in directions[numbers])

    return change


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_zero_takes_the_component_out_at_every_position(place: tuple[str, str]) -> None:
    model, network, directions, samples, where = made(place)
    sets = [[4], [4, 0, 7]]
    units = [sm.parse_units(network, [f"{where}.directions:{k}" for k in numbers]) for numbers in sets]
    result = sm.evaluate(network, [sm.edits.zero(of) for of in units], samples)
    assert result.engine == "shared prefix"
    for row, numbers in enumerate(sets):
        expected = losses(model, samples, place[1], edited_output(place, without(directions, numbers)))
        np.testing.assert_allclose(result.after.loss[row], expected, rtol=1e-4, atol=1e-5)
        assert np.abs(result.after.loss[row] - result.before.loss).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("place", [("vit", "blocks.1"), ("resnet", "layer2")], ids=" ".join)
def test_mean_holds_the_component_at_its_mean(place: tuple[str, str]) -> None:
    model, network, directions, samples, where = made(place)
    d, seen = directions[4], []
    losses(model, samples, place[1], edited_output(place, lambda x: seen.append(x @ d) or x))
    mean = seen[0].mean()
    units = sm.parse_units(network, f"{where}.directions:4")
    result = sm.evaluate(network, sm.edits.mean(units, sm.edits.channel_means(network, samples)), samples)

    def held(x: Tensor) -> Tensor:
        return x + (mean - x @ d)[..., None] * d / (d @ d)

    expected = losses(model, samples, place[1], edited_output(place, held))
    np.testing.assert_allclose(result.after.loss[0], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(result.after.loss[0] - result.before.loss).max() > 1e-4


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_taylor_is_the_gradient_along_the_direction_times_the_activation(place: tuple[str, str]) -> None:
    model, network, directions, samples, where = made(place)
    outputs: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        outputs.append(x.detach().requires_grad_())
        return outputs[0]

    batch = samples.batch()
    with model.get_submodule(place[1]).register_forward_hook(edited_output(place, keep)):
        loss = F.cross_entropy(model(batch.inputs), batch.y)
    (slope,) = torch.autograd.grad(loss, outputs)
    along = (outputs[0] @ directions.T).flatten(0, -2)
    slopes = (slope @ (directions / directions.square().sum(1, keepdim=True)).T).flatten(0, -2)
    scores = sm.criteria.taylor(network, samples, select=ALL)
    torch.testing.assert_close(
        scores[f"{where}.directions.weight"], (along * slopes).sum(0).abs().detach(), rtol=1e-3, atol=1e-6
    )


def test_other_criteria_see_the_dot_products() -> None:
    model, network, directions, samples, where = made(("vit", "blocks.1"))
    name, seen = f"{where}.directions.weight", []
    losses(model, samples, "blocks.1", edited_output(("vit", "blocks.1"), lambda x: seen.append(x) or x))
    of_samples = (seen[0] @ directions.T).mean(1)  # [samples, directions]
    one, two = samples.part(range(5)), samples.part(range(5, 9))
    a, b = of_samples[:5], of_samples[5:]
    pooled = ((a.var(0) * 4 + b.var(0) * 3) / 7).sqrt()
    found = sm.criteria.activation_difference(network, one, two, select=ALL)[name]
    torch.testing.assert_close(found, (a.mean(0) - b.mean(0)).abs() / pooled, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sm.criteria.weight_norm(network, select=ALL)[name], directions.norm(dim=1))
    assert sm.criteria.attribution_patching(network, one, two, select=ALL)[name].abs().min() > 0


@settings(max_examples=10, deadline=None)
@given(factor=st.floats(0.01, 100), k=st.integers(0, N - 1))
def test_nothing_is_left_whatever_the_length_of_the_direction(factor: float, k: int) -> None:
    torch.manual_seed(1)
    model, directions = WithPair().eval(), torch.randn(N, 10)
    x, after = torch.randn(4, 3, 32, 32), []
    network = sm.with_directions(model, "stem", factor * directions)
    new = sm.edits.edited(network, sm.edits.zero(sm.parse_units(network, f"stem.directions:{k}")))
    new.pair.register_forward_hook(lambda _module, _inputs, output: after.append(output[0]))
    new(x)
    left = after[0] @ F.normalize(directions[k], dim=0)
    assert left.abs().max() < 1e-5 * after[0].abs().max()


def test_the_network_answers_as_before_and_stays_as_it_is() -> None:
    model, network, _, samples, _ = made(("vit", "blocks.1"))
    names = set(model.state_dict())
    twice = sm.with_directions(network, "blocks.3", torch.eye(64))
    x = samples.batch().inputs
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(twice(x), model(x), rtol=0, atol=1e-5)
    assert set(model.state_dict()) == names
    assert set(sm.criteria.weight_norm(twice, select=ALL)) == {f"blocks.{k}.directions.weight" for k in (1, 3)}


@pytest.mark.slow
def test_null_sets_are_other_directions_of_the_layer() -> None:
    _, network, _, samples, where = made(("vit", "blocks.1"))
    edit = sm.edits.zero(sm.parse_units(network, f"{where}.directions:4"))
    with pytest.warns(UserWarning, match="only 11 of 99 null sets"):
        drawn = sm.null_sets(network, edit)
    assert {str(one.units) for one in drawn} == {f"{where}.directions:{k}" for k in range(N) if k != 4}
    table = sm.effects(sm.evaluate(network, [edit, *drawn], samples), samples)
    assert set(table["n_controls"]) == {N - 1}


def test_random_directions_have_the_lengths_of_the_others() -> None:
    lengths = torch.tensor([1.0, 2.0, 5.0])
    given = lengths[:, None] * F.normalize(torch.randn(3, 400))
    drawn = sm.random_directions(given, 7)
    torch.testing.assert_close(drawn.norm(dim=1), lengths[torch.arange(7) % 3])
    assert F.cosine_similarity(drawn[:6, None], drawn[None, :6], dim=-1).triu(1).abs().max() < 0.3
    assert torch.equal(drawn[:4], sm.random_directions(given, 4))
    assert not torch.equal(drawn, sm.random_directions(given, 7, seed=1))
    assert sm.random_directions(given, 0).shape == (0, 400)


@pytest.mark.parametrize(
    ("layer", "directions", "message"),
    [
        ("stm", torch.ones(2, 10), r"no layer 'stm': close are stem"),
        ("", torch.ones(2, 10), "no layer ''"),
        ("stem", torch.ones(10), r"shape \[directions, width\], not of shape \[10\]"),
        ("stem", [[1.0]], "not list"),
        ("stem", torch.zeros(0, 10), "not of shape"),
        ("stem", torch.eye(10) - torch.eye(10)[3], "direction 3 has the length 0"),
        ("stem", torch.full((1, 10), torch.nan), "direction 0 has the length nan"),
    ],
)
def test_mistakes_have_one_line(layer: str, directions: Any, message: str) -> None:
    with pytest.raises(sm.UserError, match=message):
        sm.with_directions(WithPair(), layer, directions)


def test_layers_that_do_not_fit_are_named() -> None:
    network = sm.with_directions(WithPair(), "stem", torch.ones(2, 7))
    with pytest.raises(sm.UserError, match=r"have width 7, but layer stem gives a tensor of shape \[4, 10, 6, 6\]"):
        network(torch.randn(4, 3, 32, 32))
    with pytest.raises(sm.UserError, match="has directions already"):
        sm.with_directions(network, "stem", torch.ones(2, 10))
    unused = WithPair()
    unused.aside = nn.Linear(10, 10)
    with pytest.raises(sm.UserError, match="do not depend on what a call of layer aside gives"):
        sm.with_directions(unused, "aside", torch.ones(2, 10))
    with pytest.raises(sm.UserError, match="0 or more"):
        sm.random_directions(torch.ones(2, 10), -1)
    with pytest.raises(sm.UserError, match=r"random directions need .* of memory"):
        sm.random_directions(torch.ones(2, 10), 10**13)


def test_files_of_directions(tmp_path: Path) -> None:
    decoder = torch.randn(5, 3)
    save_file({"decoder": decoder, "bias": torch.zeros(3)}, tmp_path / "one.safetensors")
    save_file({"decoder": decoder, "encoder": torch.randn(3, 5)}, tmp_path / "two.safetensors")
    assert torch.equal(read_directions(tmp_path / "one.safetensors"), decoder)
    assert torch.equal(read_directions(tmp_path / "two.safetensors", "decoder"), decoder)
    with pytest.raises(sm.UserError, match="holds 2 matrices: name the directions with --tensor"):
        read_directions(tmp_path / "two.safetensors")
    with pytest.raises(sm.UserError, match="has no tensor 'W_dec': it has decoder, encoder"):
        read_directions(tmp_path / "two.safetensors", "W_dec")
