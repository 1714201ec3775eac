"""What every engine can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..datasets.samples import Samples
from ..edits.edit import Edit
from ..networks.names import Precision
from .outcomes import Block
from .pass_time import TimedPass


class Engine(Protocol):
    """Computes the outcomes of edited networks, block by block.

    Two classes do this: `PlainEngine` by full forward passes, and `PrefixEngine` by computing only what each edit
    changes. `engine_for` chooses between them, and gives a `FallbackEngine` around its choice.
    """

    @property
    def description(self) -> str:
        """How outcomes are computed: "shared prefix", or "plain" and the reason."""
        ...

    @property
    def precision(self) -> Precision:
        """Precision of the forward passes."""
        ...

    @property
    def pass_multiplications(self) -> int:
        """Multiplications of a full forward pass of one sample; 0 where they are not known."""
        ...

    def run(self, edits: Sequence[Edit], rows: range, samples: Samples) -> Block:
        """Compute one block.

        Arguments:
            edits: all edits of the study.
            rows: positions of the edits to compute now; -1 is the network before any edit.
            samples: where the outcomes are measured.

        Returns:
            One row per position in `rows`, one column per sample.

        Raises:
            UserError: an image is missing or broken, or an edit does not fit the network.
        """
        ...

    def pass_fractions(self, edits: Sequence[Edit]) -> NDArray[np.float64]:
        """The fraction of a full forward pass that each edit needs, between 0 and 1, [edits]."""
        ...

    def pass_time(self, samples: Samples, precision: Precision | None = None) -> TimedPass:
        """Measure how long a full forward pass of one sample takes.

        Arguments:
            samples: the first few of them are used.
            precision: the engine's own if not given.
        """
        ...

    def compiling_pays(self, passes: float) -> bool:
        """Whether compiling saves more time than it costs, for this number of full forward passes of one sample."""
        ...

    def on_threads(self, n: int) -> Engine:
        """The same engine, which computes with so many threads. They are what they were before and after its work."""
        ...

    def compiled(self) -> Engine:
        """The same engine compiled by torch.compile; the engine itself where that is not possible."""
        ...
