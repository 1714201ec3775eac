"""Segments compiled by torch.compile, where a compiler is available."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from ...console import log
from ...errors import first_line
from ..silence import quiet

SegmentFunction = Callable[..., Tensor]
"""Takes the value that enters a segment and the shared values that it reads, and gives the value that leaves it.
All are [rows, ...]."""


def compiled_functions(modules: Sequence[fx.GraphModule], example: Sequence[Tensor]) -> list[SegmentFunction] | None:
    """Compile segments with their constants frozen. Each one is compiled when it is first called.

    Arguments:
        modules: the segments, in order.
        example: the arguments of the first.

    Returns:
        The compiled segments; None, with a line in the log, where the first of them cannot be compiled.
    """
    functions = [_compiled(module) for module in modules]
    try:
        with quiet(), torch.no_grad():
            functions[0](*example)
    except Exception as error:
        log(f"running without torch.compile, which fails here: {first_line(error)}")
        torch.compiler.reset()
        return None
    return functions


def _compiled(module: fx.GraphModule) -> SegmentFunction:
    function = torch.compile(module, dynamic=True, options={"freezing": True})

    def quietly(*values: Tensor) -> Tensor:
        with quiet():
            result: Tensor = function(*values)
        return result

    return quietly
