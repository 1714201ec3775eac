"""Outcomes of `evaluate` compared with full passes through copies whose weights were set by hand."""

from __future__ import annotations

import copy
import dataclasses
import gc
import weakref
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.engine import outcomes as outcomes_module
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.outcomes import assemble, block_plan
from spurious_memorization.engine.plain import PlainEngine
from spurious_memorization.networks.build import NetworkSettings, build
from spurious_memorization.networks.losses import margin


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.conv2(self.bn1(self.conv1(x)).relu()).relu().mean((2, 3))))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(3)
    net = Net()
    with torch.no_grad():
        net.fc.weight.mul_(20)
        for _ in range(20):
            net(torch.randn(64, 3, 8, 8))
    return net.train()


@pytest.fixture(scope="module")
def data() -> sm.Dataset:
    torch.manual_seed(4)
    split = (["train"] * 3 + ["test"]) * 10
    return sm.from_tensors(torch.randn(40, 3, 8, 8), np.arange(40) % 3, np.arange(40) % 2, split)


@pytest.fixture(scope="module")
def edits(model) -> list[sm.Edit]:
    one = sm.parse_units(model, "conv2:3,conv1:0")
    weights = sm.parse_units(model, "conv1:17,conv2:100", sm.Selection(unit="weight"))
    return [
        sm.edits.zero(one),
        sm.edits.random_init(one, 5.0, seed=3),
        sm.edits.zero(weights),
        sm.edits.zero(sm.parse_units(model, "conv2:3")),
    ]


def by_hand(model: nn.Module, number: int, edit: sm.Edit) -> nn.Module:
    """A copy with the weights of edit `number` above."""
    net = copy.deepcopy(model).eval()
    with torch.no_grad():
        if number == 1:
            drawn = sm.edits.edited_tensors(model, edit)
            for name, value in drawn.items():
                net.get_parameter(name).copy_(value)
        if number in (0, 3):
            net.conv2.weight[3], net.conv2.bias[3] = 0, 0
        if number == 0:
            net.conv1.weight[0] = 0
        if number == 2:
            net.conv1.weight.view(-1)[17] = 0
            net.conv2.weight.view(-1)[100] = 0
    return net


def expected(net: nn.Module, samples: sm.Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    batch = samples.batch()
    with torch.no_grad():
        output = net(batch.inputs)
    losses = -output.log_softmax(1)[torch.arange(len(batch.y)), batch.y]
    margins = [float(row[y] - max(v for c, v in enumerate(row) if c != y)) for row, y in zip(output, batch.y)]  # noqa: B905
    return output.argmax(1).numpy(), losses.numpy(), np.array(margins)


def assert_same(one: sm.Outcomes, two: sm.Outcomes, tolerance: float = 0.0) -> None:
    assert np.array_equal(one.index, two.index)
    for a, b in ((one.before, two.before), (one.after, two.after)):
        assert np.array_equal(a.predicted, b.predicted)
        assert np.array_equal(a.edits, b.edits)
        np.testing.assert_allclose(a.loss, b.loss, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(a.margin, b.margin, rtol=tolerance, atol=tolerance)


def test_evaluate_equals_full_passes(model, data, edits):
    result = sm.evaluate(model, edits, data.test)
    assert result.index.tolist() == data.test.index.tolist() == list(range(3, 40, 4))
    assert result.after.predicted.shape == (len(edits), 10)
    rows = [(copy.deepcopy(model).eval(), result.before, 0)]
    rows += [(by_hand(model, number, edit), result.after, number) for number, edit in enumerate(edits)]
    for net, block, row in rows:
        predicted, loss, margins = expected(net, data.test)
        assert np.array_equal(block.predicted[row], predicted)
        np.testing.assert_allclose(block.loss[row], loss, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(block.margin[row], margins, rtol=1e-4, atol=1e-5)
    assert len({values.tobytes() for values in (*result.before.loss, *result.after.loss)}) == len(edits) + 1
    assert (result.before.predicted != result.after.predicted).any()


def test_the_network_stays_as_it_is(model, data, edits):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sm.evaluate(model, edits, data.train)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_without_edits_there_is_the_network_itself(model, data, edits):
    result, with_edits = sm.evaluate(model, [], data.train), sm.evaluate(model, edits, data.train)
    assert result.after.predicted.shape == (0, 30)
    assert np.array_equal(result.before.loss, with_edits.before.loss)


def test_an_edit_that_changes_nothing_equals_the_row_before(model, data):
    result = sm.evaluate(model, [sm.edits.random_noise(sm.parse_units(model, "conv1:0"), 0.0)], data.train)
    assert np.array_equal(result.after.loss, result.before.loss)
    assert np.array_equal(result.after.margin, result.before.margin)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "deit_tiny"])
def test_batch_size_changes_no_result(name):
    torch.manual_seed(0)
    net = build(NetworkSettings(model=name, n_classes=3, image_size=32))
    if name == "deit_tiny":
        nn.init.normal_(net.head.weight)
        units = sm.parse_units(net, "blocks.1.attn:2,blocks.7.attn:0", sm.Selection(unit="head"))
    else:
        nn.init.normal_(net.fc.weight)
        units = sm.parse_units(net, "layer1.0.conv1:3,layer2.1.conv2:9")
    samples = sm.from_tensors(torch.randn(24, 3, 32, 32), np.arange(24) % 3, np.zeros(24, int)).train
    one, two = (
        sm.evaluate(net, [sm.edits.zero(units)], samples, execution=sm.Execution(eval_batch_size=size))
        for size in (7, 200)
    )
    assert_same(one, two, 1e-5 * max(1.0, float(np.abs(two.after.loss).max())))
    assert len(np.unique(two.before.predicted)) > 1


@pytest.mark.parametrize(
    ("edits_per_block", "outcomes_per_block", "min_samples"),
    [
        (64, 7, 7),
        pytest.param(1, 4, 2, marks=pytest.mark.slow),
        pytest.param(2, 1000, 30, marks=pytest.mark.slow),
        pytest.param(3, 30, 1, marks=pytest.mark.slow),
    ],
)
def test_blocks_change_no_result(model, data, edits, monkeypatch, edits_per_block, outcomes_per_block, min_samples):
    whole = sm.evaluate(model, edits, data.train)
    monkeypatch.setattr(outcomes_module, "EDITS_PER_BLOCK", edits_per_block)
    monkeypatch.setattr(outcomes_module, "OUTCOMES_PER_BLOCK", outcomes_per_block)
    monkeypatch.setattr(outcomes_module, "MAX_OUTCOMES_PER_BLOCK", outcomes_per_block)
    monkeypatch.setattr(outcomes_module, "MIN_SAMPLES_PER_BLOCK", min_samples)
    plan = list(block_plan(len(edits), len(data.train)))
    cells = [(row, column) for rows, columns in plan for row in rows for column in columns]
    assert len(plan) > 1
    assert sorted(cells) == [(row, column) for row in range(-1, len(edits)) for column in range(len(data.train))]
    of_edits = [rows for rows, _ in plan]
    assert of_edits == sorted(of_edits, key=lambda rows: rows.start)  # all samples of some edits, then the next edits
    assert_same(sm.evaluate(model, edits, data.train), whole, 1e-5)
    run = PlainEngine(model).run
    blocks = [run(edits, rows, data.train.part(columns)) for rows, columns in plan]
    order = np.random.default_rng(0).permutation(len(blocks))
    assert order.tolist() != sorted(order)
    assert_same(assemble(edits, [blocks[i] for i in order], "plain"), assemble(edits, blocks, "plain"))
    assert_same(assemble(edits, blocks, "plain"), whole, 1e-5)


def test_nothing_of_a_block_stays_in_memory(model, data, edits):
    """Tensors in circles of references stay until Python's collector looks for them, which may be many blocks later."""
    engine = engine_for(model, data.train)
    engine.run(edits, range(-1, len(edits)), data.train)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        engine.run(edits, range(-1, len(edits)), data.train)
        gc.collect()
        assert [type(one) for one in gc.garbage if issubclass(type(one), torch.Tensor)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


class Made(Sequence):
    """Makes each edit when it is asked for, and counts how many were held at the same time."""

    def __init__(self, edits, n):
        self.edits, self.n, self.held, self.most = edits, n, weakref.WeakSet(), 0

    def __len__(self):
        return self.n

    def __getitem__(self, position):
        made = dataclasses.replace(self.edits[position % len(self.edits)])  # as a rule does, it never ends
        self.held.add(made)
        self.most = max(self.most, len(self.held))
        return made


def test_outcomes_come_block_by_block_and_edits_are_made_when_they_are_needed(model, data, edits, monkeypatch):
    whole = sm.evaluate(model, edits, data.train)
    monkeypatch.setattr(outcomes_module, "EDITS_PER_BLOCK", 2)
    monkeypatch.setattr(outcomes_module, "OUTCOMES_PER_BLOCK", 7)
    monkeypatch.setattr(outcomes_module, "MAX_OUTCOMES_PER_BLOCK", 7)
    monkeypatch.setattr(outcomes_module, "MIN_SAMPLES_PER_BLOCK", 7)
    made = Made(edits, 3 * len(edits))
    cells = []
    for before, after in sm.outcome_blocks(model, made, data.train):
        columns = np.searchsorted(whole.index, after.index)
        assert np.array_equal(before.index, after.index)
        np.testing.assert_allclose(before.loss[0], whole.before.loss[0, columns], rtol=1e-5)
        np.testing.assert_allclose(
            after.margin, whole.after.margin[np.ix_(after.edits % len(edits), columns)], rtol=1e-4, atol=1e-5
        )
        cells += [(edit, sample) for edit in after.edits for sample in after.index]
    assert sorted(cells) == [(edit, sample) for edit in range(len(made)) for sample in sorted(data.train.index)]
    assert made.most < len(made)


def test_a_block_as_a_table(model, data, edits):
    ((_, after),) = sm.outcome_blocks(model, edits, data.train)
    frame = after.frame()
    assert len(frame) == after.loss.size
    for row in frame.sample(10, random_state=0).itertuples():
        column = after.index.tolist().index(row.sample)
        assert row.predicted == after.predicted[row.edit, column]
        assert row.loss == after.loss[row.edit, column]
        assert row.margin == after.margin[row.edit, column]


@pytest.mark.parametrize("wrong", [[3], 3, "units"])
def test_outcome_blocks_take_edits_alone(model, data, edits, wrong):
    with pytest.raises(sm.UserError, match=r"sm\.edits\.zero"):
        list(sm.outcome_blocks(model, edits[0].units if wrong == "units" else wrong, data.train))


@pytest.mark.slow
def test_order_of_samples_changes_no_result(model, data, edits):
    shuffled = data.train.at(np.random.default_rng(0).permutation(data.train.index))
    assert_same(sm.evaluate(model, edits, shuffled), sm.evaluate(model, edits, data.train), 1e-5)


@pytest.mark.slow
def test_bf16_is_near_and_no_copy_of_float32(model, data, edits):
    single = sm.evaluate(model, edits, data.train)
    half = sm.evaluate(model, edits, data.train, precision="bf16")
    assert not np.array_equal(half.after.loss, single.after.loss)
    np.testing.assert_allclose(half.before.margin, single.before.margin, atol=0.3)
    assert (half.before.predicted == single.before.predicted).mean() > 0.8
    assert_same(half, sm.evaluate(model, edits, data.train, precision="bf16"))


def test_loss_on_probabilities(model, data):
    result = sm.evaluate(model, [], data.train, loss="cross_entropy_on_probabilities")
    batch = data.train.batch()
    with torch.no_grad():
        probabilities = copy.deepcopy(model).eval()(batch.inputs).softmax(1)
    losses = F.cross_entropy(probabilities, batch.y, reduction="none")
    np.testing.assert_allclose(result.before.loss[0], losses.numpy(), rtol=1e-4, atol=1e-5)


def test_margin_is_true_minus_best_other():
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0], [1.0, 4.0, 2.0]])
    assert margin(logits, torch.tensor([0, 1, 2])).tolist() == [-3.0, 2.0, -2.0]


class Text(nn.Module):
    """Takes its inputs by name and gives an object with a field `logits`, as the transformers library does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.inner = nn.Linear(4, 5)
        self.classifier = nn.Linear(5, 2)

    def forward(self, tokens: Tensor, mask: Tensor) -> SimpleNamespace:
        mean = (self.embed(tokens) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return SimpleNamespace(logits=self.classifier(self.inner(mean).relu()))


def test_inputs_by_name_and_outputs_with_logits():
    torch.manual_seed(0)
    model = Text()
    tokens, mask = torch.randint(0, 9, (12, 6)), (torch.rand(12, 6) > 0.3).float()
    mask[:, 0] = 1
    data = sm.from_tensors({"mask": mask, "tokens": tokens}, [0, 1] * 6, [0, 0, 1] * 4)
    units = sm.top(sm.criteria.gradient(model, data.train), 2)
    assert set(units.by_name()) == {"inner.weight"}
    result = sm.evaluate(model, [sm.edits.zero(units)], data.train, execution=sm.Execution(eval_batch_size=5))
    with torch.no_grad():
        before, after = (net(tokens, mask).logits for net in (model, sm.edits.edited(model, sm.edits.zero(units))))
    y = torch.from_numpy(data.y)
    for block, output in ((result.before, before), (result.after, after)):
        np.testing.assert_allclose(block.loss[0], F.cross_entropy(output, y, reduction="none"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "output", [lambda x: x.mean((2, 3)).sum(1), lambda x: x, lambda x: (x.mean((2, 3)), x.amax((2, 3)))]
)
def test_an_output_that_is_no_logits_is_an_error(data, output):
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> object:
            return output(x)

    with pytest.raises(sm.UserError, match=r"logits of shape \[samples, classes\]"):
        sm.evaluate(Odd(), [], data.train)


def test_a_missing_device_is_an_error(model, data):
    with pytest.raises(sm.UserError, match="no device 'tpu' here: use auto or"):
        sm.evaluate(model, [], data.train, execution=sm.Execution(device="tpu"))
