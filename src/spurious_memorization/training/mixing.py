"""Mixtures of samples, on which mixup and LISA train."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..datasets.samples import Dataset
from ..datasets.sources import Inputs
from ..datasets.texts import Texts
from ..errors import UserError
from .objective import NotApplicableError


def check_mixable(data: Dataset) -> None:
    """Check, before any training starts, that samples have mixtures.

    Raises:
        NotApplicableError: they are texts.
    """
    if isinstance(data.source, Texts):
        raise NotApplicableError("texts have no mixtures: choose another objective than mixup or lisa")


def mixed(one: Inputs, other: Inputs, share: Tensor) -> Inputs:
    """share x one + (1 - share) x other, sample by sample.

    Arguments:
        one, other: inputs of as many samples.
        share: of the first in each mixture, [samples], from 0 to 1.

    Raises:
        UserError: an input holds whole numbers, such as the tokens of a text.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {name: _mixed(one[name], other[name], share) for name in one}
    assert isinstance(one, Tensor)
    assert isinstance(other, Tensor)
    return _mixed(one, other, share)


def _mixed(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    if not one.is_floating_point():
        raise UserError("whole numbers, such as tokens, have no mixture: choose another objective than mixup or lisa")
    shaped = share.to(one).view(-1, *[1] * (one.ndim - 1))
    return shaped * one + (1 - shaped) * other
