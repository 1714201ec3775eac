"""Parts of a batch: every sample has its process."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spurious_memorization.together import (
    Share,
    average_gradients,
    check_same,
    collected,
    is_first,
    of_first,
    own,
    this_share,
    whole,
)


@given(n=st.integers(0, 300), of=st.integers(1, 40))
def test_parts_make_up_the_whole(n: int, of: int) -> None:
    parts = [Share(number, of).part(n) for number in range(of)]
    if n < of:
        assert set(parts) == {range(n)}
        assert Share(0, of).copies(n) == of
    else:
        assert [position for part in parts for position in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert min(map(len, parts)) >= 1
        assert Share(0, of).copies(n) == 1


def test_alone_everything_is_this_process() -> None:
    x, model = torch.randn(5, 2), nn.Linear(2, 1)
    model(x).sum().backward()
    assert model.weight.grad is not None
    before = model.weight.grad.clone()
    average_gradients(model)
    check_same(model)
    assert torch.equal(model.weight.grad, before)
    assert this_share() == Share(0, 1)
    assert is_first()
    assert own(x) is not x
    assert torch.equal(own(x), x)
    assert whole(x, 5) is x
    rows = (x.numpy(),)
    assert collected(rows, 5) is rows
    assert of_first("value") == "value"
