"""The strongest edit: the change of some units, of bounded size, that raises the loss of some samples most."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.samples import Samples
from ..datasets.sources import Batch
from ..datasets.tensors import as_batch
from ..errors import UserError
from ..networks.checked import checked_network
from ..networks.forward import device_of, outside_inference_mode, working_copy
from ..networks.losses import LOSSES
from ..networks.names import LossName
from ..networks.outputs import logits_by_batch
from ..networks.units import Units, touched
from .edit import Edit, checked_units

FIRST_STEP = 2.0
"""Length of the first step, as a multiple of the norm; each further step is shorter. So the first steps find a
direction, whatever the start, and the last steps refine it."""

LossAndSlope = Callable[[Tensor], tuple[float, Tensor]]
"""Numbers of the units, [numbers] -> the mean loss, and its gradient with respect to them, [numbers]."""


@outside_inference_mode
def strongest_edit(
    model: nn.Module,
    units: Units,
    samples: Batch | Samples,
    *,
    norm: float | None = None,
    steps: int = 20,
    seed: int = 0,
    loss: LossName = "cross_entropy",
) -> Edit:
    """Search the change of the units' weights, of bounded norm, that raises the mean loss of the samples most.

    An edit that is optimized at a random place often works as well as one at the place where something is stored (Wang
    and Veitch 2025). So compare the strongest edit of the selected units with the strongest edits of random units: if
    both do the same harm, the harm is no evidence that the selected units hold the samples.

    The search is projected gradient ascent (Madry et al. 2018), once from no change, once from the change that `zero`
    makes, and once from a random one. The result is the best change on the way. There may be a better one: more `steps`
    and other seeds may find it.

    Arguments:
        model: the network, which stays as it is.
        units: of any kind.
        samples: whose loss is raised, usually training samples of one group.
        norm: largest L2 norm of the change, over all units together. By default the norm of the units' own weights,
            which is that of the change that `zero` makes.
        steps: of each ascent. Each step passes the samples once forward and once backward.
        seed: of the random change.
        loss: as for `gradient`.

    Returns:
        An edit of the kind "optimized", which holds the new weights. It can't be moved to other units: search again.

    Raises:
        UserError: there are no units, the network lacks one, `norm` is no number above 0, `steps` is no number from 1
            up, the loss is unknown, the edited network gives NaN or infinity, or an image is missing or broken.

    Example:
        ```python
        strongest = sm.edits.strongest_edit(model, units, data.train.of_group("waterbird on land"))
        result = sm.evaluate(model, strongest, data.test)
        ```
    """
    network, batch = working_copy(checked_network(model)), as_batch(samples)
    places = _places(network, checked_units(units))
    old = _taken(dict(network.named_parameters()), places)
    bound = _checked_norm(norm, float(old.norm()))
    _check_steps_and_loss(steps, loss)
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        return F.normalize(torch.randn(len(old), generator=generator), dim=0).to(old)

    def loss_and_slope(change: Tensor) -> tuple[float, Tensor]:
        return _loss_and_slope(network, places, old + change, batch, loss)

    starts = [torch.zeros_like(old), _within(-old, bound), bound * drawn()]
    ascents = [_climbed(loss_and_slope, start, bound, steps, drawn) for start in starts]
    _, best = max(ascents, key=lambda ascent: ascent[0])
    outside = {name: torch.full_like(network.get_parameter(name), torch.nan) for name in places}
    tensors = {name: value.cpu() for name, value in _put(outside, places, old + best).items()}
    return Edit("optimized", units, {"norm": bound, "steps": steps, "loss": loss}, tensors, seed)


def _climbed(
    loss_and_slope: LossAndSlope, start: Tensor, bound: float, steps: int, drawn: Callable[[], Tensor]
) -> tuple[float, Tensor]:
    """The largest loss on the way up from a start, and its change, [numbers].

    Where the loss is flat, such as for a channel that is 0 everywhere, the direction of the step is drawn.
    """
    change, best, highest = start, start, -math.inf
    for step in range(steps + 1):
        height, slope = loss_and_slope(change)
        if height > highest:
            best, highest = change, height
        direction = F.normalize(slope / slope.abs().amax(), dim=0) if slope.any() else drawn()
        change = _within(change + FIRST_STEP * (1 - step / steps) * bound * direction, bound)
    return highest, best


def _within(change: Tensor, bound: float) -> Tensor:
    """The change, shortened to the bound if it is longer."""
    return change * min(1.0, bound / max(float(change.norm()), 1e-30))


@torch.enable_grad()
def _loss_and_slope(
    network: nn.Module, places: Mapping[str, Tensor], numbers: Tensor, batch: Batch | Samples, loss: LossName
) -> tuple[float, Tensor]:
    """Mean loss of the network with these numbers in the units, and its gradient with respect to them, [numbers]."""
    parameters = {name: network.get_parameter(name) for name in places}
    changed = {name: value.requires_grad_() for name, value in _put(parameters, places, numbers).items()}
    total, slope, n = 0.0, torch.zeros_like(numbers), 0
    passes = logits_by_batch(network, batch, changed, name="the edited network", remedy="choose a smaller norm")
    for part, output in passes:
        of_part = LOSSES[loss](output, part.y.to(output.device)).sum()
        slopes = torch.autograd.grad(of_part, list(changed.values()), materialize_grads=True)
        slope += _taken(dict(zip(changed, slopes, strict=True)), places)
        total, n = total + of_part.item(), n + len(part.y)
    return total / n, slope / n


def _places(network: nn.Module, units: Units) -> dict[str, Tensor]:
    """{parameter: flat positions of the units' numbers in it}.

    Raises:
        UserError: there are no units, or the network lacks one.
    """
    if not len(units):
        raise UserError("there are no units: choose some by sm.top(scores, n), or name them by sm.parse_units")
    places = {}
    for name, where in touched(network, units).items():
        parameter = network.get_parameter(name)
        if not units.are_flat:
            row = parameter[0].numel()
            where = (where[:, None] * row + torch.arange(row)).flatten()
        places[name] = where.to(device_of(network))
    return places


def _taken(values: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> Tensor:
    """The numbers in these places, [numbers]."""
    return torch.cat([values[name].flatten()[where] for name, where in places.items()])


def _put(values: Mapping[str, Tensor], places: Mapping[str, Tensor], numbers: Tensor) -> dict[str, Tensor]:
    """Copies of the tensors with other numbers in these places."""
    parts = torch.split(numbers, [len(where) for where in places.values()])
    return {
        name: values[name].flatten().index_copy(0, where, part).reshape(values[name].shape)
        for (name, where), part in zip(places.items(), parts, strict=True)
    }


def _checked_norm(norm: float | None, norm_of_units: float) -> float:
    if norm is None and not norm_of_units:
        raise UserError("the units' weights are all 0: give the norm of the change")
    bound = norm_of_units if norm is None else norm
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound < math.inf:
        raise UserError(f"norm {bound!r} must be a number above 0")
    return float(bound)


def _check_steps_and_loss(steps: object, loss: object) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UserError(f"steps {steps!r} must be a whole number from 1 up")
    if loss not in LOSSES:
        raise UserError(f"unknown loss {loss!r}: choose among {', '.join(LOSSES)}")
