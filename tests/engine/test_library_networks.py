"""Networks of timm and transformers: edits have the outcomes that plain PyTorch gives."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.datasets.sources import Inputs
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.networks.selection import Selection
from spurious_memorization.networks.units import sites

pytestmark = pytest.mark.slow

N_CLASSES = 3
NEAR = 1e-4
MAX_LAST_FRACTION = 0.7
"""The edit that comes last needs less than this share of a full forward pass."""

FEW_BLOCKS = {"layers": (1, 1, 1, 1)}

TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "beit_base_patch16_224": (32, {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 2}),
    "cait_xxs24_224": (32, {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 2}),
    "coat_lite_tiny": (64, {"img_size": 64}),
    "convnext_atto": (64, {}),
    "convnextv2_atto": (64, {}),
    "crossvit_9_240": (240, {}),
    "deit_tiny_distilled_patch16_224": (32, {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 2}),
    "densenet121": (64, {"block_config": (2, 2, 2, 2)}),
    "dpn48b": (64, {"k_sec": (1, 1, 1, 1)}),
    "edgenext_xx_small": (64, {}),
    "eva02_tiny_patch14_224": (28, {"img_size": 28, "depth": 2, "embed_dim": 48, "num_heads": 2}),
    "fastvit_t8": (64, {}),
    "ghostnet_050": (64, {}),
    "gmlp_ti16_224": (32, {"img_size": 32}),
    "hiera_tiny_224": (64, {"img_size": 64, "embed_dim": 48, "stages": (1, 1, 2, 1)}),
    "hrnet_w18_small": (64, {}),
    "inception_v3": (96, {}),
    "mixer_s32_224": (64, {"img_size": 64}),
    "mnasnet_050": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "mobilevit_xxs": (64, {}),
    "nf_resnet26": (32, {}),
    "poolformer_s12": (64, {}),
    "pvt_v2_b0": (64, {}),
    "regnety_002": (64, {}),
    "repvgg_a0": (64, {}),
    "resnet18": (64, {}),
    "resnetv2_50": (64, FEW_BLOCKS),
    "resnext50_32x4d": (64, FEW_BLOCKS),
    "sequencer2d_s": (64, {"img_size": 64, **FEW_BLOCKS}),
    "swin_tiny_patch4_window7_224": (56, {"img_size": 56, "depths": (2, 2), "embed_dim": 24, "num_heads": (2, 2)}),
    "swinv2_tiny_window8_256": (64, {"img_size": 64, "depths": (2, 2), "embed_dim": 24, "num_heads": (2, 2)}),
    "test_coatnet": (64, {"img_size": 64}),
    "test_efficientnet": (64, {}),
    "test_maxvit": (64, {"img_size": 64}),
    "test_nfnet": (32, {}),
    "test_vit": (32, {"img_size": 32}),
    "twins_svt_small": (64, {"img_size": 64, "depths": (1, 1, 1, 1)}),
    "vit_pe_core_tiny_patch16_384": (32, {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 2}),
    "vit_small_patch16_dinov3": (32, {"img_size": 32, "depth": 2, "embed_dim": 96, "num_heads": 2}),
    "vit_small_patch16_rope_224": (32, {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 2}),
    "vit_tiny_r_s16_p8_224": (64, {"img_size": 64, "depth": 2}),
    "xcit_nano_12_p16_224": (64, {"img_size": 64, "depth": 2}),
}

PVT = {"depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4]}
TRANSFORMERS: dict[str, tuple[int, dict[str, Any]]] = {
    "beit": (32, {"image_size": 32, "patch_size": 16}),
    "convnextv2": (64, {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "dinov2": (32, {"image_size": 32, "patch_size": 16}),
    "mobilenet_v2": (64, {"depth_multiplier": 0.35}),
    "regnet": (64, {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "groups_width": 8}),
    "resnet": (64, {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 1]}),
    "convnext": (64, {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "deit": (32, {"image_size": 32, "patch_size": 16}),
    "mobilevit": (64, {"hidden_sizes": [12, 16, 20], "neck_hidden_sizes": [8, 8, 12, 16, 20, 24, 32]}),
    "pvt": (
        64,
        {
            "image_size": 64,
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 3, 4],
        },
    ),
    "swin": (32, {"image_size": 32, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}),
    "vit": (32, {"image_size": 32, "patch_size": 16}),
}
TEXT: dict[str, dict[str, Any]] = {
    "bert": {},
    "distilbert": {"dim": 48, "n_layers": 2, "n_heads": 2, "hidden_dim": 96},
    "roberta": {},
}
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}

PLAIN: dict[str, str] = {}
"""Networks that need full forward passes: what their engine says."""


def lively(net: nn.Module, x: Inputs) -> nn.Module:
    """Random statistics, scales and offsets, so that nothing is zero or one by chance, and a head that tells these
    samples apart."""
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.ndim <= 1:
                value.uniform_(-0.3, 0.3) if "bias" in name else value.uniform_(0.5, 1.5)
            elif not value.any():
                value.normal_(0, 0.1)
        norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            net.train()(x)
        for norm in norms:
            norm.running_mean.add_(torch.empty_like(norm.running_mean).uniform_(-0.2, 0.2))
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.25))
        output = plain_logits(net.eval(), x)
        scale = 2 / (output - output.mean(0)).std()
        heads = [
            module
            for module in net.modules()
            if N_CLASSES in (getattr(module, "out_features", 0), getattr(module, "out_channels", 0))
        ]
        assert heads
        for head in heads:
            head.weight.mul_(scale)
            head.bias.sub_(output.mean(0)).mul_(scale)
    return net


def without_channel(net: nn.Module, layer: str, channel: int) -> nn.Module:
    changed = copy.deepcopy(net)
    module = changed.get_submodule(layer)
    with torch.no_grad():
        module.weight[channel] = 0
        if module.bias is not None:
            module.bias[channel] = 0
    return changed


def without_head(net: nn.Module, attention: str, output: str, head: int, n_heads: int) -> nn.Module:
    """A copy in which a hook zeroes what one head gives to the output layer of its attention."""
    changed = copy.deepcopy(net)

    def zeroed(value: Tensor) -> Tensor:
        axis = 1 if value.ndim == 4 and isinstance(module.get_submodule(output), nn.Conv2d) else -1
        return torch.cat([x * (k != head) for k, x in enumerate(value.chunk(n_heads, axis))], axis)

    module = changed.get_submodule(attention)
    if output:
        module.get_submodule(output).register_forward_pre_hook(lambda _, given: (zeroed(given[0]), *given[1:]))
    else:
        module.register_forward_hook(
            lambda _, given, result: zeroed(result) if isinstance(result, Tensor) else (zeroed(result[0]), *result[1:])
        )
    return changed


def plain_logits(net: nn.Module, x: Inputs) -> Tensor:
    with torch.no_grad():
        output = net(x) if isinstance(x, Tensor) else net(**x)
        return getattr(output, "logits", output)


def images(size: int) -> Tensor:
    return F.interpolate(torch.randn(6, 3, 4, 4), size) * 2 + torch.randn(6, 3, size, size)


def sentences() -> dict[str, Tensor]:
    """Token numbers of sentences of several lengths, padded."""
    mask = (torch.arange(9) < torch.tensor([9, 3, 5, 9, 7, 4])[:, None]).long()
    return {"input_ids": torch.randint(3, 40, (6, 9)) * mask + (1 - mask), "attention_mask": mask}


def assert_outcomes_of_plain_pytorch(net: nn.Module, x: Inputs) -> str:
    """Compare the network before any edit, and without each of some channels; give the engine."""
    net, y = lively(net, x), torch.arange(6) % N_CLASSES
    keys = list(sites(net, Selection()))
    layers = [keys[i].removesuffix(".weight") for i in np.linspace(0, len(keys) - 1, 5).astype(int)]
    channels = [int(torch.randint(len(net.get_submodule(layer).weight), ())) for layer in layers]
    pairs = list(zip(layers, channels, strict=True))
    edits = [sm.edits.zero(sm.parse_units(net, f"{layer}:{channel}")) for layer, channel in pairs]
    samples = sm.from_tensors(x, y, [0] * 6).train
    result = sm.evaluate(net, edits, samples)
    if result.engine == "shared prefix":
        engine = engine_for(net, samples)
        assert engine.pass_fractions(edits).min() < MAX_LAST_FRACTION
    networks = [net, *(without_channel(net, *pair) for pair in pairs)]
    expected = torch.stack([plain_logits(network, x) for network in networks])
    near = NEAR * max(1.0, float(expected.abs().max()))
    of_label = expected.gather(2, y.expand(len(networks), 6)[..., None])[..., 0]
    others = expected.scatter(2, y.expand(len(networks), 6)[..., None], -torch.inf).amax(2)
    losses = F.cross_entropy(expected.movedim(2, 1), y.expand(len(networks), 6), reduction="none")
    loss, margin, predicted = (
        np.concatenate([getattr(result.before, of), getattr(result.after, of)])
        for of in ("loss", "margin", "predicted")
    )
    np.testing.assert_allclose(loss, losses, rtol=0, atol=2 * near)
    np.testing.assert_allclose(margin, of_label - others, rtol=0, atol=2 * near)
    best = expected.topk(2, 2).values
    is_clear = (best[..., 0] - best[..., 1] > 2 * near).numpy()
    assert np.array_equal(predicted[is_clear], expected.argmax(2).numpy()[is_clear])
    assert is_clear.mean() > 0.8
    moved = (expected[1:] - expected[0]).abs().amax((1, 2))
    assert (moved > 3 * near).float().mean() >= 0.6, moved
    return result.engine


def image_classifier(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    _, options = TRANSFORMERS[name]
    of_blocks = {} if "hidden_sizes" in options or "depths" in options or name == "mobilenet_v2" else SMALL
    config = transformers.AutoConfig.for_model(name, num_labels=N_CLASSES, architectures=[], **of_blocks, **options)
    torch.manual_seed(0)
    return transformers.AutoModelForImageClassification.from_config(config)


def text_classifier(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    options = TEXT[name] or SMALL
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, num_labels=N_CLASSES, vocab_size=40, **options)
    return transformers.AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    size, options = TIMM[name]
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=N_CLASSES, **options)
    assert assert_outcomes_of_plain_pytorch(net, images(size)) == PLAIN.get(name, "shared prefix")


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name):
    net = image_classifier(name)
    assert assert_outcomes_of_plain_pytorch(net, images(TRANSFORMERS[name][0])) == PLAIN.get(name, "shared prefix")


@pytest.mark.parametrize("name", TEXT)
def test_text(name):
    assert assert_outcomes_of_plain_pytorch(text_classifier(name), sentences()) == "shared prefix"


HEADS = {
    **dict.fromkeys(("beit", "deit", "dinov2", "swin", "vit"), "o_proj"),
    **dict.fromkeys(("mobilevit", "pvt", "bert", "roberta"), ""),
    "distilbert": "out_lin",
    **dict.fromkeys(
        (
            "crossvit_9_240",
            "deit_tiny_distilled_patch16_224",
            "hiera_tiny_224",
            "mobilevit_xxs",
            "pvt_v2_b0",
            "swin_tiny_patch4_window7_224",
            "test_coatnet",
            "test_maxvit",
            "test_vit",
            "vit_small_patch16_dinov3",
            "vit_small_patch16_rope_224",
        ),
        "proj",
    ),
}
"""Networks with attention: the layer whose input holds the heads side by side; "" is the output of the module."""


@pytest.mark.parametrize("name", HEADS)
def test_a_zeroed_head_equals_a_hook_that_zeroes_its_output(name):
    if name in TEXT:
        net, x = text_classifier(name), sentences()
    elif name in TRANSFORMERS:
        net, x = image_classifier(name), images(TRANSFORMERS[name][0])
    else:
        size, options = TIMM[name]
        torch.manual_seed(0)
        net, x = timm.create_model(name, num_classes=N_CLASSES, **options), images(size)
    net, moved = lively(net, x), []
    for attention, site in sites(net, Selection(unit="head")).items():
        head = site.n - 1
        edit = sm.edits.zero(sm.parse_units(net, f"{attention}:{head}", Selection(unit="head")))
        expected = plain_logits(without_head(net, attention, HEADS[name], head, site.n), x)
        near = NEAR * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(plain_logits(sm.edits.edited(net, edit), x), expected, rtol=0, atol=near)
        moved.append(float((expected - plain_logits(net, x)).abs().max()) > 3 * near)
    assert np.mean(moved) > 0.5
