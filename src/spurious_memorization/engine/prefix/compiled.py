"""Segments compiled by torch.compile, where a compiler is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from ...console import log
from ...errors import first_line
from ..silence import quiet

Run = Callable[[Tensor], Tensor]


def compiled(modules: Sequence[fx.GraphModule], example: Tensor) -> list[Run]:
    """The same modules compiled with their constants frozen, each when it is first called; as they are where the
    first of them can't be compiled, which is said.

    Arguments:
        modules: each takes what the one before gives.
        example: an input of the first.
    """
    compiling = [_compiled(module) for module in modules]
    try:
        with quiet(), torch.no_grad():
            compiling[0](example)
    except Exception as error:
        log(f"running without torch.compile, which fails here: {first_line(error)}")
        torch.compiler.reset()
        return list(modules)
    return compiling


def _compiled(module: fx.GraphModule) -> Run:
    run = torch.compile(module, dynamic=True, options={"freezing": True})

    def quietly(x: Tensor) -> Tensor:
        with quiet():
            result: Tensor = run(x)
        return result

    return quietly
