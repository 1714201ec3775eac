"""The head on features that are computed once, and where those are kept."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import tiny
import torch
from PIL import Image
from tiny_networks import small_convnet
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks import head_alone
from spurious_memorization.networks.head_alone import head_on_features


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPURMEM_CACHE", str(tmp_path / "cache"))
    return tiny.make_images(tmp_path / "data", train=5)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return small_convnet().eval()


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.features"))


def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one name whenever features are computed for all samples."""
    calls: list[str] = []
    original = head_alone._computed
    monkeypatch.setattr(head_alone, "_computed", lambda *given: (calls.append("all"), original(*given))[1])
    return calls


@pytest.mark.parametrize("name", ["resnet18", "deit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050"])
def test_the_head_answers_as_the_network_does(name: str) -> None:
    torch.manual_seed(0)
    small = {"img_size": 32, "depth": 2} if name.startswith("deit") else {}
    model = timm.create_model(name, num_classes=3, **small).eval()
    data = sm.from_tensors(torch.randn(9, 3, 32, 32), [0, 1, 2] * 3, [0, 1, 0] * 3)
    head, features = head_on_features(model, data, "a test")
    with torch.no_grad():
        expected, found = model(data.train.batch().inputs), head(features.train.batch().inputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert head.state_dict().keys() < model.state_dict().keys()


def test_features_are_computed_once(
    folder: Path, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, data = computed(monkeypatch), sm.read_data(folder)
    _, first = head_on_features(model, data, "a test")
    with torch.no_grad():
        model.fc.weight.add_(1)  # another head on the same features
    _, second = head_on_features(model, data, "a test")
    assert len(calls) == len(kept(tmp_path)) == 1
    assert torch.equal(first.train.batch().inputs, second.train.batch().inputs)


def test_other_layers_or_images_have_other_features(
    folder: Path, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = computed(monkeypatch)
    head_on_features(model, sm.read_data(folder), "a test")
    with torch.no_grad():
        model.conv2.bias.add_(1)
    head_on_features(model, sm.read_data(folder), "a test")
    assert len(calls) == 2
    image = folder / "train_0_01.png"
    before = image.stat()
    Image.fromarray(np.full((16, 16, 3), 9, np.uint8)).save(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    _, data = head_on_features(model, sm.read_data(folder), "a test")
    assert len(calls) == len(kept(tmp_path)) == 3
    with torch.no_grad():
        expected = model[:-1](sm.read_data(folder).train.batch().inputs)
    torch.testing.assert_close(data.train.batch().inputs, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fault", ["truncated", "of another network"])
def test_wrong_features_on_disk_are_computed_again(
    folder: Path, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    data = sm.read_data(folder)
    _, expected = head_on_features(model, data, "a test")
    (file,) = kept(tmp_path)
    if fault == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        head_alone.write_features(file, torch.randn(len(data), 12))
    calls = computed(monkeypatch)
    _, found = head_on_features(model, data, "a test")
    assert calls == ["all"]
    assert torch.equal(found.test.batch().inputs, expected.test.batch().inputs)


def test_nothing_is_kept_without_a_cache(
    folder: Path, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPURMEM_CACHE_GB", "0")
    head_on_features(model, sm.read_data(folder), "a test")
    monkeypatch.setenv("SPURMEM_CACHE_GB", "0.0000001")
    head_on_features(model, sm.read_data(folder), "a test")
    assert not kept(tmp_path)
    assert "are not kept, as they don't fit: raise SPURMEM_CACHE_GB" in capsys.readouterr().err


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.fc(self.body(x).relu())


def test_a_network_that_does_more_with_the_answer_of_its_head() -> None:
    data = sm.from_tensors(torch.randn(6, 4), [0, 1] * 3, [0, 1, 0] * 2)
    with pytest.raises(sm.UserError, match=r"a test needs a head whose output is the network's answer.+ of fc goes"):
        head_on_features(Scaled().eval(), data, "a test")
