"""Networks, samples and edits as users have them, in every public function: the same result, or one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import spurious_memorization as sm
from spurious_memorization.console import log_once
from spurious_memorization.networks import forward
from spurious_memorization.networks.checked import checked_network


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2)
    return nn.Sequential(*layers)


def dataset() -> sm.Dataset:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(24, 3, 6, 6, generator=generator), torch.arange(24) % 2
    a = torch.where(torch.arange(24) % 16 < 2, 1 - y, y)
    return sm.from_tensors(x, y, a, ["train"] * 16 + ["test"] * 8)


FUNCTIONS: dict[str, Callable[[Any, sm.Samples], Any]] = {
    "weight_norm": lambda model, _: sm.criteria.weight_norm(model)["0.weight"].numpy(),
    "random": lambda model, _: sm.criteria.random(model)["0.weight"].numpy(),
    "gradient": lambda model, samples: sm.criteria.gradient(model, samples)["0.weight"].numpy(),
    "taylor": lambda model, samples: sm.criteria.taylor(model, samples)["0.weight"].numpy(),
    "hardest_samples": lambda model, samples: sm.hardest_samples(model, samples, n=3).index,
    "evaluate": lambda model, samples: sm.evaluate(model, zeroed(model), samples).after.margin,
    "edited": lambda model, _: sm.edits.edited(model, zeroed(model)).state_dict()["0.weight"].numpy(),
    "edited_tensors": lambda model, _: sm.edits.edited_tensors(model, zeroed(model))["0.weight"].numpy(),
    "channel_means": lambda model, samples: sm.edits.channel_means(model, samples)["0"].numpy(),
    "null_sets": lambda model, _: [str(e.units) for e in sm.null_sets(model, zeroed(model), n=3)],
    "sets_of_many_sizes": lambda model, _: [str(e.units) for e in sm.sets_of_many_sizes(model, zeroed(model), n=3)],
    "pruned_units": lambda model, samples: str(sm.pruned_units(model, "gradient", 0.2, samples)),
    "ablation": lambda model, samples: sm.ablation(model, samples)["0.weight"].numpy(),
    "ablation_map": lambda model, samples: sm.ablation_map(model, samples)["margin_change"].to_numpy(),
    "parse_units": lambda model, _: str(sm.parse_units(model, "0:2")),
    "by_threshold": lambda model, _: len(
        sm.by_threshold(model, sm.criteria.weight_norm(model, select=sm.Selection(unit="weight")), 3)
    ),
    "tracing_rules": lambda model, _: sm.tracing_rules("paper", "gradient", "weight", model).select.layers,
    "study_in_memory": lambda model, _: (
        sm.study_in_memory(model, dataset(), sm.StudySettings(criterion=("gradient",), size=("2",), controls=3))
        .effects()["margin_change"]
        .to_numpy()
    ),
}
"""{name: a public function that takes a network, reduced to what can be compared}."""


LONG = {"ablation": pytest.mark.slow, "study_in_memory": pytest.mark.slow}


def zeroed(model: Any) -> sm.Edit:
    return sm.edits.zero(sm.parse_units(model, "0:2,0:4"))


def keeping_activations() -> nn.Module:
    class Keeps(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            self.last, self.every = x, {"output": [super().forward(x)]}
            return self.every["output"][0]

    model = Keeps(*network())
    model.eval()(dataset().train.batch().inputs)
    assert not model.every["output"][0].is_leaf
    return model


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return network()


SAME = {
    "DataParallel": lambda: nn.DataParallel(network()),
    "compiled": lambda: torch.compile(network()),
    "compiled DataParallel": lambda: torch.compile(nn.DataParallel(network())),
    "double": lambda: network().double(),
    "keeps activations": keeping_activations,
    "made in inference mode": made_in_inference_mode,
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(network()),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly")
@pytest.mark.parametrize("function", [pytest.param(name, marks=LONG.get(name, ())) for name in FUNCTIONS])
def test_every_function_takes_the_networks_that_people_have(function: str) -> None:
    call, samples = FUNCTIONS[function], dataset().train
    expected = call(network(), samples)
    for name, made in SAME.items():
        found = call(made(), samples)
        if isinstance(expected, np.ndarray):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            assert found == expected, name
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            np.testing.assert_array_equal(call(network(), samples), expected)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.ReLU, r"the network is the class ReLU: give an instance, such as ReLU\(\)"),
        ({"0.weight": torch.ones(1)}, "state dict: build the network"),
        ("resnet18", "the network is a str: give a torch.nn.Module"),
        (nn.Sequential(nn.LazyLinear(2)), "lazy layers without weights: pass one batch"),
        (nn.Linear(2, 2, device="meta"), "device meta"),
    ],
    ids=["class", "state dict", "name", "lazy", "meta"],
)
def test_every_function_refuses_what_is_no_network(function: str, model: Any, message: str) -> None:
    with pytest.raises(sm.UserError, match=message):
        FUNCTIONS[function](model, dataset().train)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_network_is_computed_in_float32_and_a_line_says_so(
    dtype: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    log_once.cache_clear()
    half, samples = network().to(dtype), dataset().train
    whole = copy.deepcopy(half).float()
    for call in (FUNCTIONS[name] for name in ("evaluate", "gradient", "hardest_samples", "channel_means")):
        np.testing.assert_allclose(call(half, samples), call(whole, samples), rtol=1e-5, atol=1e-6)
    assert capsys.readouterr().err.count(f"numbers of type {dtype}") == 1
    assert half[0].weight.dtype == dtype


def test_a_network_that_cannot_be_copied_says_why() -> None:
    model = network()
    model.lines = (line for line in ())
    with pytest.raises(sm.UserError, match=r"can't be copied \(cannot pickle 'generator' object\)"):
        sm.hardest_samples(model, dataset().train)


def test_a_network_without_layers_says_so() -> None:
    with pytest.raises(sm.UserError, match="no convolution or linear layer but its head"):
        sm.criteria.weight_norm(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        nn.utils.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    ],
)
def test_computed_weights_are_named_with_their_remedy(wrap: Callable[[nn.Module], Any]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *network())
    model[2] = nn.Conv2d(4, 12, 3)
    wrap(model[0])
    for unit in ("channel", "weight"):
        with pytest.raises(sm.UserError, match=r"layer 0 has a weight or bias that is computed .*parametrizations"):
            sm.criteria.weight_norm(model, select=sm.Selection(unit=unit))
    assert list(sm.criteria.weight_norm(model, select=sm.Selection(exclude=("0",)))) == ["2.weight"]
    data = sm.from_tensors(torch.randn(4, 3, 8, 8), [0, 1] * 2, [0] * 4)
    assert sm.evaluate(model, sm.edits.zero(sm.parse_units(model, "2:0")), data.train).after.margin.shape == (1, 4)


def test_a_computed_head_does_not_matter() -> None:
    model = network()
    parametrizations.weight_norm(model[-1])
    model.pretrained_cfg = {"classifier": "5"}
    assert list(sm.criteria.weight_norm(model)) == ["0.weight"]


@pytest.mark.slow
def test_one_edit_is_a_list_of_one() -> None:
    model, samples = network(), dataset().train
    alone, listed = (sm.evaluate(model, e, samples).after.margin for e in (zeroed(model), [zeroed(model)]))
    np.testing.assert_array_equal(alone, listed)
    assert sm.evaluate(model, (edit for edit in [zeroed(model)]), samples).after.margin.shape == (1, 16)


def test_what_is_no_edit_is_refused() -> None:
    model, samples = network(), dataset().train
    units, scores = sm.parse_units(model, "0:2"), sm.criteria.weight_norm(model)
    with pytest.raises(sm.UserError, match=r"the edits are a Units: give a list of edits, such as \[sm.edits.zero"):
        sm.evaluate(model, units, samples)
    with pytest.raises(sm.UserError, match="edit 1 is a Units: make an edit of it"):
        sm.evaluate(model, [sm.edits.zero(units), units], samples)
    for edit in (sm.edits.zero, lambda u: sm.edits.random_init(u, 0.1), lambda u: sm.edits.mean(u, {})):
        with pytest.raises(sm.UserError, match=r"the units are a Scores: choose some by sm.top"):
            edit(scores)
    with pytest.raises(sm.UserError, match=r"edit mean takes .*channel_means, not a list"):
        sm.edits.mean(units, [1.0])
    with pytest.raises(sm.UserError, match="edit rewind takes a state dict"):
        sm.edits.rewind(units, "runs/first")


def test_a_rewind_takes_the_older_network_too() -> None:
    units, older = sm.parse_units(network(), "0:2"), network()
    nn.init.ones_(older[0].weight)
    for given in (older, nn.DataParallel(older), older.state_dict()):
        edited = sm.edits.edited(network(), sm.edits.rewind(units, given))
        assert bool((edited[0].weight[2] == 1).all())
        assert not bool((edited[0].weight[1] == 1).any())


@pytest.mark.slow
def test_a_data_set_of_one_split_stands_for_its_samples() -> None:
    model, data = network(), dataset()
    with pytest.raises(sm.UserError, match=r"has several splits: choose the samples of one, such as data.train"):
        sm.evaluate(model, [], data)
    alone = sm.from_tensors(data.train.batch().inputs, data.train.y, [0, 1] * 8)
    for call in (FUNCTIONS[name] for name in ("evaluate", "gradient", "hardest_samples", "channel_means", "ablation")):
        np.testing.assert_array_equal(call(model, alone), call(model, alone.train))


@pytest.mark.parametrize("function", ["evaluate", "hardest_samples", "channel_means", "ablation_map"])
def test_what_is_no_sample_is_refused(function: str) -> None:
    with pytest.raises(sm.UserError, match=r"the samples are a Tensor: make them by sm.from_tensors\(x, y, a\).train"):
        FUNCTIONS[function](network(), torch.ones(2, 3, 6, 6))


@pytest.mark.slow
@pytest.mark.parametrize("function", ["gradient", "taylor", "ablation", "pruned_units"])
def test_criteria_take_a_pair_of_inputs_and_labels(function: str) -> None:
    call, model, samples = FUNCTIONS[function], network(), dataset().train
    expected = call(model, samples.batch())
    x, y, index = samples.batch()
    for given in ((x, y), [x.double().numpy(), y[:, None]], sm.Batch(x.numpy(), y.tolist(), index)):
        found = call(model, given)
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(sm.UserError, match=r"the samples are a Tensor: give samples such as data.train, or a pair"):
        call(model, x)
    with pytest.raises(sm.UserError, match="x and y must have the same length, not 16 and 7"):
        call(model, (x, y[:7]))


def test_a_data_set_is_asked_for_where_samples_do_not_do() -> None:
    for call in (lambda d: sm.study_in_memory(network(), d), sm.with_pseudo_minority, sm.val_halves):
        with pytest.raises(sm.UserError, match=r"the samples of one split: give the whole data set, samples\.dataset"):
            call(dataset().train)


def giving(output: Callable[[Tensor], object]) -> nn.Module:
    class Gives(nn.Sequential):
        def forward(self, x: Tensor) -> object:
            return output(super().forward(x))

    return Gives(*network())


class Output(dict[str, Any]):
    """As transformers' ModelOutput: keys that are attributes, too."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda z: (z, z), r"a tuple of 2 \(\[16, 2\], \[16, 2\]\)"),
        (lambda z: [z[0]], r"a list of 1 \(\[2\]\)"),
        (lambda z: {"main": z, "auxiliary": z}, "a dict with the keys main, auxiliary"),
        (lambda z: z[:, :, None, None], r"a tensor of shape \[16, 2, 1, 1\]"),
        (lambda z: z.argmax(1), r"a tensor of shape \[16\] and type int64"),
        (lambda z: z.round().long(), r"a tensor .*type int64"),
        (lambda z: z.to(torch.complex64), r"a tensor .*type complex64"),
        (lambda z: z[:, :1], r"a tensor of shape \[16, 1\]"),
        (lambda z: z.repeat(2, 1), r"a tensor of shape \[32, 2\] and type float32 for 16 samples"),
        (lambda z: {"logits": [z]}, "a list of 1"),
        (lambda _: None, "a NoneType"),
    ],
)
def test_outputs_that_are_no_logits_are_described(output: Callable[[Tensor], object], message: str) -> None:
    for function in ("hardest_samples", "gradient"):
        with pytest.raises(sm.UserError, match=rf"the network gives {message}.*logits of shape \[samples, classes\]"):
            FUNCTIONS[function](giving(output), dataset().train)


@pytest.mark.slow
@pytest.mark.parametrize("output", [lambda z: {"logits": z, "features": z * 2}, lambda z: Output(loss=1, logits=z)])
def test_logits_are_taken_from_a_field_or_key(output: Callable[[Tensor], object]) -> None:
    for function in ("evaluate", "gradient"):
        expected = FUNCTIONS[function](network(), dataset().train)
        np.testing.assert_allclose(FUNCTIONS[function](giving(output), dataset().train), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "what"),
    [
        (lambda z: (z[:, 0], z, z[:, :, None]), "a tuple of 3"),
        (lambda z: [z], "a list of 1"),
        (lambda z: {"scores": z, "norm": z.norm(dim=1, keepdim=True), "class": z.argmax(1)}, "a dict with the keys"),
    ],
)
def test_the_only_matrix_of_a_tuple_or_mapping_is_taken_and_said(
    output: Callable[[Tensor], object], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for function in ("evaluate", "gradient"):
        expected = FUNCTIONS[function](network(), dataset().train)
        np.testing.assert_allclose(FUNCTIONS[function](giving(output), dataset().train), expected, rtol=1e-5, atol=1e-6)
    forward.logits(giving(output), torch.ones(2, 3, 6, 6))
    assert f"the network gives {what}" in capsys.readouterr().err


def test_a_failing_forward_is_one_line_with_the_networks_own_error() -> None:
    def fails(_: Tensor) -> object:
        raise LookupError("no table\nfor this")

    small = sm.from_tensors(torch.randn(8, 3, 2, 2), [0, 1] * 4, [0] * 8).train
    for call in (sm.criteria.gradient, sm.hardest_samples, lambda model, samples: sm.evaluate(model, [], samples)):
        with pytest.raises(sm.UserError, match=r"shape \[\d, 3, 2, 2\] \(RuntimeError: .*Kernel size"):
            call(network(), small)
        with pytest.raises(sm.UserError, match=r"\(LookupError: no table\): use images of another size") as refusal:
            call(giving(fails), dataset().train)
        assert isinstance(refusal.value.__cause__, LookupError)

    def exhausts(_: Tensor) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(sm.UserError, match=r"CUDA out of memory.*use smaller batches"):
        sm.hardest_samples(giving(exhausts), dataset().train)
    with pytest.raises(sm.UserError, match=r"inputs of shape \[8, 5\] .*give inputs that its forward takes"):
        sm.hardest_samples(nn.Linear(4, 2), sm.from_tensors(torch.ones(8, 5), [0, 1] * 4, [0] * 8).train)


def test_a_wrapped_network_is_unwrapped_once_and_stays_as_it_is() -> None:
    inner = network()
    assert checked_network(nn.DataParallel(torch.compile(inner))) is inner
    wrapped = nn.DataParallel(inner)
    sm.evaluate(wrapped, zeroed(wrapped), dataset().train)
    assert wrapped.module is inner


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_a_network_needs_one_output_for_each_named_class(outputs: int) -> None:
    model = network()
    model[-1] = nn.Linear(12, outputs)
    x, y = dataset().train.batch()[:2]
    data = sm.from_tensors(x, y, y, classes=("cat", "dog", "owl"))
    message = rf"{outputs} outputs but the data have 3 classes \(cat, dog, owl\)|shape \[\d+, 1\]"
    for call in (sm.hardest_samples, lambda model, samples: sm.evaluate(model, [], samples)):
        with pytest.raises(sm.UserError, match=message):
            call(model, data.train)
    if outputs == 4:  # without names, classes may be missing from the data
        assert sm.evaluate(model, [], sm.from_tensors(x, y, y).train).before.margin.shape == (1, 16)
