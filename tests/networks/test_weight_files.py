"""State dicts as people's training code leaves them: wrapped, nested, beside other tensors, and broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks.weights import fit, load_exactly, read_weights

State = dict[str, Tensor]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return nn.Sequential(*layers)


STATE = dict(network(3).state_dict())


def loaded(file: Path, **options: Any) -> State:
    model = network()
    load_exactly(model, read_weights(file, **options).state, "the network")
    return dict(model.state_dict())


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def prefixed(prefix: str, state: State = STATE) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def averaged() -> State:
    return dict(torch.optim.swa_utils.AveragedModel(load(network(), STATE)).state_dict())


def load(model: nn.Module, state: State) -> nn.Module:
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(
    "content",
    [
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        prefixed("_orig_mod.module."),
        prefixed("module.module."),
        {"state_dict": prefixed("model."), "epoch": 3, "hyper_parameters": {"lr": 0.1}},
        {"state_dict": {**prefixed("net."), "criterion.weight": torch.ones(2)}},
        {"state_dict": {**prefixed("learner.network."), "learner.steps": torch.tensor(3)}},
        {"checkpoint": {"ema": {"n_averaged": torch.tensor(2), **prefixed("module.")}}},
        {"state_dict": STATE, "state_dict_ema": prefixed("", dict(network(9).state_dict()))},
        {"model": STATE, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}},
        {name: value.double() for name, value in STATE.items()},
        averaged(),
    ],
)
def test_wrapped_weights_are_the_networks_own(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"), STATE)


def test_an_entry_is_chosen_by_name(tmp_path: Path) -> None:
    average = dict(network(9).state_dict())
    torch.save({"state_dict": STATE, "state_dict_ema": average}, tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth", key="state_dict_ema"), average)
    with pytest.raises(sm.UserError, match="no state dict under 'ema': it has state_dict, state_dict_ema"):
        loaded(tmp_path / "w.pth", key="ema")


def without(name: str) -> State:
    return {key: value for key, value in STATE.items() if key != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**prefixed("student."), **prefixed("teacher.")}, "2 times, under student. and teacher.: save the one"),
        ({"student": STATE, "teacher": STATE}, "several state dicts: choose one of student, teacher with --weight-key"),
        (prefixed("module.", without("4.bias")), "4.bias is missing"),
        ({**STATE, "4.weight": torch.tensor(1.0)}, r"4.weight has shape \(\), not \(2, 4\)"),
        ({**STATE, "4.weight": STATE["4.weight"].long()}, "4.weight is of type torch.int64, not torch.float32"),
        ({**STATE, "4.weight": STATE["4.weight"].to_sparse()}, "4.weight is a sparse or quantized tensor"),
        ({**STATE, "4.weight": STATE["4.weight"].to("meta")}, "4.weight has a shape but no values"),
        ({**STATE, "0.bias": torch.zeros(3)}, "0.bias is unknown"),
        ({**STATE, "0.bias": torch.tensor(0.0)}, "0.bias is unknown"),
        ({"fc.0.weight": torch.tensor(1.0), "fc.0.bias": torch.tensor(1.0)}, "0.weight is missing"),
        ({"epoch": 3, "lr": 0.1}, "holds no state dict"),
    ],
)
def test_other_weights_are_refused_in_one_line(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(sm.UserError, match=message) as caught:
        loaded(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


PREFIXES = st.lists(st.sampled_from(("module", "_orig_mod", "model", "net", "network", "encoder", "0")), max_size=4)
CONTAINERS = st.sampled_from(
    (
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 1},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}, "param_groups": []}},
        lambda state: {"any": {"name": state}, "lr": 0.1},
    )
)


@settings(max_examples=60, deadline=None)
@given(words=PREFIXES, container=CONTAINERS, extra=st.lists(st.sampled_from(("loss.weight", "n", "net.n")), max_size=2))
def test_any_wrapper_gives_the_same_network(
    words: list[str], container: Callable[[State], Any], extra: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A prefix of any words is taken off, since with it every tensor of the network is there."""
    prefix = "".join(f"{word}." for word in words)
    others = {name: torch.ones(3) for name in extra if prefix and not name.startswith(prefix)}
    file = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(container({**others, **prefixed(prefix)}), file)
    assert same(loaded(file), STATE)


def test_a_checkpoint_of_lightning(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    own = {f"model.{name}": value for name, value in model.state_dict().items()}
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**own, "loss.weight": torch.ones(2)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "best_model_path": "x"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        "hyper_parameters": {"lr": 0.1},
    }
    torch.save(content, tmp_path / "last.ckpt")
    weights = read_weights(tmp_path / "last.ckpt")
    fitted = fit(model, weights.state)
    assert (weights.key, fitted.prefix, fitted.left_out) == ("state_dict", "model.", ("loss.weight",))
    assert all(torch.equal(fitted.state[name], value) for name, value in model.state_dict().items())
