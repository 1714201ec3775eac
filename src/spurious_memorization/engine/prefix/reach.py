"""How far an edit reaches: the operations that it may change, and the fraction of a full forward pass it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, fx

from ...edits.edit import Edit
from ...networks.names import UnitKind
from ...networks.units import owner
from .channels import is_few
from .multiplications import edit_multiplications, full_pass_multiplications
from .program import Program
from .segments import Segment


class EditReach:
    """Computes how far edits reach, and remembers the results: many edits of a study change the same layers.

    Arguments:
        program: the network's operations.
        segments: the program, cut.
        constants: its constants.
    """

    def __init__(self, program: Program, segments: Sequence[Segment], constants: Mapping[fx.Node, Tensor]) -> None:
        self._program = program
        self._segments = segments
        self._constants = constants
        self._full_pass = max(1, full_pass_multiplications(segments))
        self._operations: dict[tuple[str, ...], frozenset[fx.Node]] = {}
        self._fractions: dict[tuple[frozenset[fx.Node], bool], float] = {}

    def operations(self, edit: Edit) -> frozenset[fx.Node]:
        """The operations that an edit may change."""
        key = (edit.units.kind, *edit.units.by_name())
        if key not in self._operations:
            names = _parameters(self._program, key[1:], edit.units.kind)
            self._operations[key] = self._program.users_of_parameters(names)
        return self._operations[key]

    def pass_fraction(self, edit: Edit) -> float:
        """The fraction of a full forward pass that an edit needs."""
        parameters = self._program.parameters
        operations = self.operations(edit)
        few = edit.units.kind == "channel" and all(
            name in parameters and is_few(len(index), len(parameters[name]))
            for name, index in edit.units.by_name().items()
        )
        key = (operations, few)
        if key not in self._fractions:
            work = edit_multiplications(self._segments, self._constants, operations, few=few)
            self._fractions[key] = work / self._full_pass
        return self._fractions[key]


def _parameters(program: Program, names: Sequence[str], kind: UnitKind) -> list[str]:
    """The program's parameters that units of these layers, modules or tensors may change."""
    if kind == "weight":
        return list(names)
    layers = tuple(map(owner, names))
    return [name for name in program.parameters if name.startswith(layers)]
