"""Some accelerators have no float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NoFloat64(TorchDispatchMode):
    """Within it, no operation may give float64 numbers on another device than the CPU."""

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            is_double = isinstance(value, Tensor) and value.dtype == torch.float64
            assert not is_double or value.device.type in ("cpu", "meta"), function
        return result
