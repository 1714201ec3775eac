"""Inputs and labels as users have them: the same data set, or one line that says what to change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import spurious_memorization as sm

X = torch.arange(8 * 3 * 2 * 2, dtype=torch.float32).reshape(8, 3, 2, 2) / 7
Y = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
A = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])


def inputs(data: sm.Dataset) -> Tensor:
    found = data.train.batch().inputs
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.numpy(),
        X.double().numpy(),
        X.numpy().astype(">f8"),
        list(X),
        tuple(X.double()),
        list(X.numpy()),
        X.tolist(),
        X.double(),
        X.clone().requires_grad_(),
        [x.requires_grad_() for x in X.clone()],
    ],
)
def test_every_form_of_the_same_inputs(x: Any) -> None:
    found = inputs(sm.from_tensors(x, Y, A))
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(found, X)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype: torch.dtype) -> None:
    found = inputs(sm.from_tensors(X.to(dtype), Y, A))
    assert torch.equal(found, X.to(dtype).float())
    assert found.dtype == torch.float32


def test_float32_inputs_are_not_copied_and_whole_numbers_stay() -> None:
    x = X.clone()
    data = sm.from_tensors(x, Y, A)
    x[0] = 5
    assert bool((inputs(data)[0] == 5).all())
    tokens = torch.arange(16).reshape(8, 2)
    assert torch.equal(inputs(sm.from_tensors(tokens, Y, A)), tokens)
    assert torch.equal(sm.from_tensors({"ids": tokens.numpy()}, Y, A).train.batch().inputs["ids"], tokens)


def test_a_read_only_array_gives_no_warning() -> None:
    x = X.numpy().copy()
    x.flags.writeable = False
    assert torch.equal(inputs(sm.from_tensors(x, Y, A)), X)


def test_images_in_bytes_are_divided_by_255_and_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.full((8, 3, 2, 2), 51, np.uint8)
    assert torch.equal(inputs(sm.from_tensors(pixels, Y, A)), torch.full((8, 3, 2, 2), 0.2))
    assert "x holds images of type uint8: they are divided by 255" in capsys.readouterr().err
    with pytest.raises(sm.UserError, match=r"type uint8 and shape \[8, 12\]: convert it to float32"):
        sm.from_tensors(pixels.reshape(8, 12), Y, A)


@pytest.mark.parametrize(
    "y",
    [
        Y[:, None],
        Y.numpy(),
        Y.tolist(),
        Y.float(),
        Y.double().numpy()[:, None],
        Y.to(torch.bfloat16),
        Y.bool(),
        Y.to(torch.uint8),
        pd.Series(Y.numpy(), index=range(100, 108)),
        torch.nn.functional.one_hot(Y),
        torch.nn.functional.one_hot(Y).float().numpy(),
        torch.nn.functional.one_hot(Y).bool(),
        [torch.tensor(int(y)) for y in Y],
    ],
)
def test_every_form_of_the_same_labels(y: Any) -> None:
    for data, found in ((sm.from_tensors(X, y, A), "y"), (sm.from_tensors(X, A, y), "a")):
        assert getattr(data, found).tolist() == Y.tolist()
        assert getattr(data, found).dtype == np.int64
        assert len(data.groups) == 4


def test_a_class_of_one_hot_rows_may_have_no_sample() -> None:
    assert sm.from_tensors(X, torch.nn.functional.one_hot(Y, 3), A).groups.classes == ("0", "1", "2")


def test_one_split_for_all_samples() -> None:
    assert sm.from_tensors(X, Y, A, "test").splits == ("test",)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["cat", "dog"] * 4, "y must hold numbers, not str.*: use read_data for names"),
        (pd.Series(["cat", "dog"] * 4, dtype="category"), "y must hold numbers"),
        ([0, 1, None, 1] * 2, "y must hold numbers"),
        ([[0], [0, 1]] * 4, "y can't be read as numbers"),
        (Y + 0.5, "whole numbers from 0, not 0.5"),
        (Y - 1, "whole numbers from 0, not -1"),
        (Y * float("nan"), "whole numbers from 0, not nan"),
        (Y.double() * 1e20, r"whole numbers from 0, not 1e\+20"),
        (Y * 10**9, "whole numbers from 0, not 1000000000"),
        (torch.full((8, 2), 0.5), r"y has shape \[8, 2\]: give one whole number per sample, or one-hot rows"),
        (torch.ones(8, 2, dtype=torch.int64), "one-hot rows"),
        (Y[:7], "same length, not 8, 7, 8, 8"),
        (3, r"y has shape \[\]"),
    ],
)
def test_labels_that_can_mean_anything_are_refused(y: Any, message: str) -> None:
    with pytest.raises(sm.UserError, match=message) as refusal:
        sm.from_tensors(X, y, A)
    assert "\n" not in str(refusal.value)


def with_nan(sample: int) -> Tensor:
    x = X.clone()
    x[sample:, 1, 0, 1] = float("nan")
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (with_nan(3), "x has a value that is not a number, first in sample 3"),
        ({"image": with_nan(5)}, r"x\['image'\] has a value that is not a number, first in sample 5"),
        ({"one": X, "two": X[:5]}, "same length"),
        ({}, "same length"),
        (X[:0], "x has no samples"),
        ([], "x has no samples"),
        (torch.tensor(1.0), "x has no samples"),
        (X.to(torch.complex64), "complex"),
        (X.to_sparse(), "sparse"),
        (["a.png"] * 8, "x must hold numbers, not str.*image files"),
        ([object()] * 8, "x must hold numbers, not object"),
        ([X[0], X[0, :2]] * 4, "x can't be read as numbers .*: give a tensor or an array"),
    ],
)
def test_inputs_that_no_network_takes_are_refused(x: Any, message: str) -> None:
    with pytest.raises(sm.UserError, match=message) as refusal:
        sm.from_tensors(x, Y, A)
    assert "\n" not in str(refusal.value)
