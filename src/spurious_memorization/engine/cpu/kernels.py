"""Which kernels of this processor are used: the only module of this package that the engine imports.

There are three kernels. The environment variable `SPURMEM_KERNELS` switches them: "all" (the default), "none", or the
names of those to use, separated by commas, such as "winograd,memory".

- `winograd`: 3x3 convolutions in float32 with a fourth of the multiplications.
- `fused`: a convolution together with the sum and the activation after it, through a private operation of PyTorch. If
  that operation is missing or gives wrong results, the separate operations are used.
- `memory`: freed memory is reused within a block rather than returned to the system. This needs glibc.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, fx

from ...errors import UserError
from ..operations import Kernels
from . import fused, memory, winograd

VARIABLE = "SPURMEM_KERNELS"
NAMES = ("winograd", "fused", "memory")


def switched_on() -> frozenset[str]:
    """Names of the kernels that `SPURMEM_KERNELS` allows.

    Raises:
        UserError: the variable names a kernel that does not exist.
    """
    text = os.environ.get(VARIABLE, "").strip() or "all"
    if text in ("all", "none"):
        return frozenset(NAMES if text == "all" else ())
    chosen = [name.strip() for name in text.split(",")]
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        raise UserError(f"{VARIABLE} names no kernel {unknown[0]!r}: give all, none, or some of {', '.join(NAMES)}")
    return frozenset(chosen)


def kernels_for(operations: Iterable[fx.Node], constants: Mapping[fx.Node, Tensor]) -> Kernels:
    """Faster kernels for some layers of a program, by operation.

    Arguments:
        operations: of the program, in order.
        constants: the constants' values, as the program runs them.
    """
    return winograd.winograd_layers(operations, constants) if "winograd" in switched_on() else {}


def fused_module(module: fx.GraphModule, *, overwrites_input: bool = False) -> fx.GraphModule:
    """A segment with convolutions, sums and activations fused where possible; the module given is changed.

    Arguments:
        module: the segment.
        overwrites_input: whether it may write over the value that enters it.
    """
    return fused.fuse(module, overwrites_input=overwrites_input) if "fused" in switched_on() else module


def reused_memory() -> AbstractContextManager[Callable[[], None]]:
    """A context in which freed memory is reused; it gives a function that returns surplus memory to the system."""
    return memory.reused_memory() if "memory" in switched_on() else nullcontext(lambda: None)
