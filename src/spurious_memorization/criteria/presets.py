"""The presets `standard` and `paper`: named choices of settings, and nothing else.

`standard` is what the text of You et al. (2025) means; `paper` is the arithmetic of its research code, so that
numbers can be compared. What is stored with a result is always the expanded settings.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from ..networks.checked import checked_network
from ..networks.names import LayerKind, LossName, UnitKind
from ..networks.selection import Selection
from ..networks.units import sites
from ..settings import Settings
from .names import Preset

_PAPER_LEFT_OUT = ("*bn*", "*downsample*", "*fc*")


class TracingRules(Settings):
    """How units are scored and selected.

    Arguments:
        select: units that a criterion considers.
        loss: whose gradient is taken, and by which the hardest samples are chosen.
        threshold_everywhere: single weights are selected by a threshold that is applied to every parameter of the
            network; otherwise exactly as many as asked for.
        noise: of random edits.
        every_group: the gradient criteria are traced once for each group; otherwise for each minority group.
    """

    select: Selection
    loss: LossName
    threshold_everywhere: bool
    noise: Literal["normal", "uniform"]
    every_group: bool


def tracing_rules(preset: Preset, criterion: str, unit: UnitKind, model: nn.Module) -> TracingRules:
    """The settings of a preset.

    Arguments:
        preset: "standard" (what the text of You et al. 2025 means) or "paper" (the arithmetic of its code).
        criterion: name of the criterion.
        unit: "channel", "head", "feature" or "weight".
        model: the network; `paper` looks at whether it is a transformer.

    Returns:
        Rules with the fields select, loss, threshold_everywhere, noise and every_group.
    """
    if preset == "standard":
        return TracingRules(
            select=Selection(unit=unit),
            loss="cross_entropy",
            threshold_everywhere=False,
            noise="normal",
            every_group=False,
        )
    model = checked_network(model)
    layers: LayerKind = "linear" if unit in ("head", "weight") and is_transformer(model) else "conv"
    left_out = _PAPER_LEFT_OUT if unit == "channel" and criterion == "weight_norm" else ()
    return TracingRules(
        select=Selection(unit=unit, layers=(layers,), exclude=left_out, with_bias=False),
        loss="cross_entropy_on_probabilities",
        threshold_everywhere=unit == "weight",
        noise="uniform" if unit == "weight" else "normal",
        every_group=True,
    )


def is_transformer(model: nn.Module) -> bool:
    """Whether most of its layers are linear. The only convolution of a vision transformer cuts the patches."""
    names = sites(model, Selection(unit="weight"))
    return sum(len(site.shape) == 2 for site in names.values()) > len(names) / 2
