"""Networks by name, and weight files of every origin: read, verified or refused."""

from __future__ import annotations

import argparse
import hashlib
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks.build import NetworkSettings, build, build_pretrained
from spurious_memorization.networks.head import head_names
from spurious_memorization.networks.weights import load_exactly, read_state, read_weights, save_state

FACTORY = """
import torch
from torch import nn

def thousand():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000, bias=False))

def sized(num_classes=1000):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))

def number():
    return 3

def wrapped(num_classes=2):
    return nn.DataParallel(sized(num_classes).double())

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module in the working directory."""
    name = f"factory_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    return name


def small(seed: int = 0, n: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n))


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("eps", "is_timms"), [(None, True), (1e-6, True), (1e-5, False), (0.1, False)])
def test_deit_is_timms_own_forward_but_for_the_epsilon(eps, is_timms):
    torch.manual_seed(0)
    options = {"num_classes": 3, "img_size": 32}
    default = timm.create_model("deit_tiny_patch16_224", **options).eval()
    nn.init.normal_(default.head.weight)
    expected_names = timm.create_model(
        "deit_tiny_patch16_224", norm_layer=partial(nn.LayerNorm, eps=eps or 1e-6), **options
    ).eval()
    ours = build(NetworkSettings(model="deit_tiny", n_classes=3, image_size=32, norm_eps=eps)).eval()
    for model in (expected_names, ours):
        load_exactly(model, default.state_dict(), "deit_tiny")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), expected_names(x))
        assert torch.equal(ours(x), default(x)) is is_timms


@pytest.mark.parametrize(
    ("name", "width", "depth", "head"),
    [
        ("resnet50", 2048, 53, "fc"),
        ("deit_tiny", 192, 12, "head"),
        ("deit_small", 384, 12, "head"),
        ("deit_base", 768, 12, "head"),
        ("deit_large", 1024, 24, "head"),
    ],
)
def test_the_papers_networks(name, width, depth, head):
    with torch.device("meta"):
        model = build(NetworkSettings(model=name, n_classes=2))
    assert head_names(model) == (head,)
    assert model.get_submodule(head).weight.shape == (2, width)
    if name == "resnet50":
        assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == depth
        assert model.layer1[0].conv2.stride == (1, 1)
        assert model.layer2[0].conv2.stride == (2, 2)  # torchvision's layout: the 3x3 convolution strides
    else:
        assert len(model.blocks) == depth
        assert model.blocks[0].attn.num_heads == width // 64
        assert model.patch_embed.proj.kernel_size == (16, 16)


def test_an_unknown_name_suggests_close_ones():
    with pytest.raises(sm.UserError, match=r"unknown network 'resnet5O' \(close are .*resnet50"):
        build(NetworkSettings(model="resnet5O", n_classes=2))
    with pytest.raises(sm.UserError, match="unknown network 'qqqqqqq': use a timm name or module:factory"):
        build(NetworkSettings(model="qqqqqqq", n_classes=2))
    with pytest.raises(sm.UserError, match="leave the tag out"):
        build(NetworkSettings(model="resnet18.nobodys_tag", n_classes=2))


def test_a_users_factory(factory):
    model = build(NetworkSettings(model=f"{factory}:thousand", n_classes=3))
    assert (model[3].out_features, model[3].bias) == (3, None)
    assert build(NetworkSettings(model=f"{factory}:sized", n_classes=5))[1].out_features == 5
    assert model(torch.randn(2, 3, 5, 5)).shape == (2, 3)


def test_a_users_factory_gives_a_plain_network_in_float32(factory):
    model = build(NetworkSettings(model=f"{factory}:wrapped", n_classes=5))
    assert (model[1].out_features, model[1].weight.dtype) == (5, torch.float32)
    with pytest.raises(sm.UserError, match="lazy layers without weights"):
        build(NetworkSettings(model=f"{factory}:lazy", n_classes=5))


def test_a_users_factory_takes_weights(factory):
    settings = NetworkSettings(model=f"{factory}:thousand", n_classes=3)
    theirs = {"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.ones(4), "3.weight": torch.ones(3, 4)}
    assert same(build(settings, theirs).state_dict(), theirs)
    wide = {**theirs, "3.weight": torch.ones(1000, 4)}
    model = build(settings, wide)
    assert bool((model[0].weight == 1).all())
    assert model[3].weight.shape == (3, 4)
    assert not (model[3].weight == 1).any()
    assert len(wide["3.weight"]) == 1000
    with pytest.raises(sm.UserError, match=r"another architecture than .*: 0.bias is missing"):
        build(settings, {name: value for name, value in theirs.items() if name != "0.bias"})
    with pytest.raises(sm.UserError, match="give its weights as a file"):
        build_pretrained(settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}:gone", "name an importable module and a function"),
        ("{}_gone:f", "name an importable module and a function"),
        ("{}:", "name an importable module and a function"),
        ("{}:FACTORY", "name an importable module and a function"),
        ("{}:number", "gave an object of type int, not a torch.nn.Module"),
    ],
)
def test_a_factory_that_is_none_is_refused(factory, name, message):
    with pytest.raises(sm.UserError, match=message):
        build(NetworkSettings(model=name.format(factory), n_classes=2))


FORMS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "numpy": lambda state: {"state_dict": state, "loss": np.float64(0.5), "best": np.float32(1), "n": np.int64(3)},
    "parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "parallel_below": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("form", FORMS)
def test_state_dicts_of_every_form(tmp_path, form):
    state = small().state_dict()
    torch.save(FORMS[form](state), tmp_path / "weights.pth")
    weights = read_weights(tmp_path / "weights.pth")
    fitted = load_exactly(small(), weights.state, "small")
    assert same(fitted.state, dict(state))
    assert fitted.prefix == ("module." if form.startswith("parallel") else "")
    assert not weights.research


def test_safetensors(tmp_path):
    state = small().state_dict()
    safetensors.torch.save_file(state, tmp_path / "theirs.safetensors")
    save_state(tmp_path / "ours.safetensors", {**state, "part": state["0.weight"].transpose(0, 1)})
    assert same(read_weights(tmp_path / "theirs.safetensors").state, dict(state))
    assert torch.equal(read_state(tmp_path / "ours.safetensors")["part"], state["0.weight"].transpose(0, 1))


@pytest.mark.parametrize("head", ["fc.0", "head.0"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_of_the_research_code(tmp_path, head, prefix):
    state = {"conv1.weight": torch.randn(4, 3, 3, 3)}
    state |= {f"{head}.weight": torch.tensor([[1.0, 1], [0, 0]]), f"{head}.bias": torch.tensor([10.0, 20.0])}
    content = {
        "epoch": 40,
        "model_state_dict": {prefix + name: value for name, value in state.items()},
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-6, "betas": (0.9, 0.999)}]},
        "loss": np.float64(0.41),
    }
    torch.save(content, tmp_path / "epoch_40_checkpoints.pth.tar")
    weights = read_weights(tmp_path / "epoch_40_checkpoints.pth.tar")
    name = head.removesuffix(".0")
    assert weights.research
    assert list(weights.state) == ["conv1.weight", f"{name}.weight", f"{name}.bias"]
    assert weights.state[f"{name}.weight"].tolist() == [[0, 0], [1, 1]]  # class 1 was at position 0
    assert weights.state[f"{name}.bias"].tolist() == [20, 10]


@pytest.mark.parametrize("layers", [("fc.0", "fc.2"), ("head.0", "head.3")])
def test_a_users_head_of_several_layers_is_no_research_checkpoint(tmp_path, layers):
    state = {f"{layer}.{part}": torch.randn(2, 2)[0] for layer in layers for part in ("weight", "bias")}
    torch.save(state, tmp_path / "weights.pth")
    weights = read_weights(tmp_path / "weights.pth")
    assert not weights.research
    assert same(weights.state, state)


@pytest.mark.parametrize("name", ["resnet50-0676ba61.pth", "resnet50_a1_0-14fe96d1.pth"])
def test_a_published_file_has_the_hash_in_its_name(tmp_path, name):
    torch.save(small().state_dict(), tmp_path / name)
    with pytest.raises(sm.UserError, match=rf"SHA-256 starts with [0-9a-f]{{8}}, not with the {name[-12:-4]}"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["resnet18-20240115.pth", "net-00000000.pth", "run-3f2a9c1b.pth"])
def test_other_digits_in_a_name_are_no_hash(tmp_path, name):
    torch.save(small().state_dict(), tmp_path / name)
    assert same(read_weights(tmp_path / name).state, dict(small().state_dict()))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_truncated_pytorch_files_are_refused(tmp_path, legacy, share):
    file = tmp_path / "weights.pth"
    torch.save(small().state_dict(), file, _use_new_zipfile_serialization=not legacy)
    content = file.read_bytes()
    assert read_weights(file).state
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        sm.UserError, match=r"weights\.pth (is truncated|is no weight file|can't be read safely: it is broken)"
    ) as caught:
        read_weights(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("reader", [read_weights, read_state])
def test_truncated_safetensors_are_refused(tmp_path, share, reader):
    file = tmp_path / "weights.safetensors"
    save_state(file, dict(small().state_dict()))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(sm.UserError, match="truncated or no safetensors file"):
        reader(file)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, legacy):
    target = tmp_path / "executed"
    content = {"state_dict": small().state_dict(), "extra": Malicious(target)}
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(sm.UserError, match=r"can.t be read safely"):
        read_weights(tmp_path / "weights.pth")
    assert not target.exists()
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert target.exists()  # it would have run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(3)], "holds a list, not a state dict"),
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({"epoch": 3}, "holds no state dict"),
        ({"state_dict": {}}, "holds no state dict"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(sm.UserError, match=message):
        read_weights(tmp_path / "weights.pth")


def test_a_whole_pickled_network_is_refused(tmp_path):
    torch.save(small(), tmp_path / "weights.pth")
    with pytest.raises(sm.UserError, match="save it again as a plain state dict"):
        read_weights(tmp_path / "weights.pth")


def test_files_that_are_no_weights_or_not_there(tmp_path):
    (tmp_path / "notes.pth").write_text("accuracy was good\n")
    with pytest.raises(sm.UserError, match=r"notes\.pth is"):
        read_weights(tmp_path / "notes.pth")
    for reader in (read_weights, read_state):
        with pytest.raises(sm.UserError, match="does not exist"):
            reader(tmp_path / "gone.safetensors")


def test_load_exactly_names_what_differs():
    state = dict(small(1).state_dict())
    model = small(0)
    load_exactly(model, {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, "small")
    assert torch.equal(model[0].weight, state["0.weight"])
    cases = [
        ({k: v for k, v in state.items() if k != "4.bias"}, "4.bias is missing"),
        ({**state, "5.weight": torch.zeros(1)}, "5.weight is unknown"),
        ({**state, "4.weight": torch.zeros(3, 4)}, r"4.weight has shape \(3, 4\), not \(2, 4\)"),
    ]
    for wrong, message in cases:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(sm.UserError, match=message):
            load_exactly(model, wrong, "small")
        assert same(before, dict(model.state_dict()))


def test_an_edited_network_that_gained_a_bias_comes_back(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    edit = sm.edits.mean(sm.parse_units(model, "0:1"), {"0": torch.arange(4.0)})
    new = sm.edits.edited(model, edit)
    save_state(tmp_path / "edited.safetensors", dict(new.state_dict()))
    load_exactly(model, read_state(tmp_path / "edited.safetensors"), "its architecture")
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(model(x), new(x))
    assert model[0].bias.tolist() == [0, 1, 0, 0]


@pytest.fixture(scope="module")
def deit_state() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return dict(timm.create_model("deit_tiny_patch16_224", num_classes=1000).state_dict())


def test_a_pretrained_head_of_other_classes_is_replaced(deit_state, tmp_path):
    torch.save({"model": deit_state}, tmp_path / "deit.pth")
    given = read_weights(tmp_path / "deit.pth").state
    names = list(given)
    model = build(NetworkSettings(model="deit_tiny", n_classes=2), given)
    assert list(given) == names
    loaded = model.state_dict()
    assert loaded["head.weight"].shape == (2, 192)
    body = {name: value for name, value in loaded.items() if not name.startswith("head.")}
    assert len(body) == len(deit_state) - 2
    assert all(torch.equal(value, deit_state[name]) for name, value in body.items())
    assert "state_dict" not in model.pretrained_cfg


def test_a_pretrained_head_of_as_many_classes_is_kept():
    theirs = build(NetworkSettings(model="deit_tiny", n_classes=3, image_size=32)).state_dict()
    theirs["head.weight"].fill_(7)
    ours = build(NetworkSettings(model="deit_tiny", n_classes=3, image_size=32), dict(theirs))
    assert same(dict(ours.state_dict()), dict(theirs))


def test_position_embeddings_are_resized_for_another_image_size(deit_state):
    model = build(NetworkSettings(model="deit_tiny", n_classes=2, image_size=64), deit_state)
    assert model.pos_embed.shape == (1, 17, 192)
    assert torch.equal(model.pos_embed[:, 0], deit_state["pos_embed"][:, 0])
    grid = deit_state["pos_embed"][:, 1:].reshape(1, 14, 14, 192).movedim(-1, 1)
    expected = nn.functional.interpolate(grid, (4, 4), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed[:, 1:].detach(), expected, rtol=1e-4, atol=1e-6)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 2)


def test_weights_of_another_architecture_are_refused(deit_state):
    for name in ("resnet18", "deit_small"):
        with pytest.raises(sm.UserError, match=f"the weights don't fit {name}"):
            build(NetworkSettings(model=name, n_classes=2), dict(deit_state))


def test_a_resnet_takes_every_image_size():
    model = build(NetworkSettings(model="resnet18", n_classes=4, image_size=48)).eval()
    for size in (32, 48):
        assert model(torch.randn(1, 3, size, size)).shape == (1, 4)
