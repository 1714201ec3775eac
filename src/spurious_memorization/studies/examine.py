"""A study in memory: a user's own network and samples, no run directory needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from torch import Tensor, nn

from ..criteria.scores import Scores
from ..datasets.samples import Dataset
from ..edits.apply import channel_means
from ..engine.evaluate import engine_for
from ..engine.outcomes import Block, block_plan
from ..engine.protocol import Engine
from ..errors import UserError
from ..settings import Execution
from .blocks import Part, beside_before
from .measure import measure, parts_of
from .plan import check_memory, plan, variants_frame
from .rankings import RankingSettings, trace
from .selected_sets import study_effects
from .selection import ranked_units
from .settings import StudySettings, parse_edits, parse_splits, rankings_of, rules_of


def examine(
    model: nn.Module,
    data: Dataset,
    settings: StudySettings | None = None,
    *,
    older: Mapping[str, Tensor] | None = None,
    engine: Engine | None = None,
    execution: Execution | None = None,
) -> pd.DataFrame:
    """Select units, edit them beside matched controls, and answer the three questions, all in memory.

    Arguments:
        model: the network, which stays as it is.
        data: samples with labels, attributes and splits.
        settings: as for `study`; `epoch`, `other_epochs` and `agreement_with` don't matter, as there is no run.
        older: state dict of an older checkpoint, for `rewind`.
        engine: for this network, where one is there already.
        execution: device, workers, batch size; changes no result.

    Returns:
        The effects: one row a selected set, split and group, with the columns of `study_effects`.

    Raises:
        UserError: a setting doesn't fit network or data.

    Example:
        ```python
        found = sm.examine(model, data, sm.StudySettings(criterion=("gradient",), size=("3",)))
        found[["traced_on", "split", "group_name", "accuracy change", "p_adjusted", "verdict"]]
        ```
    """
    settings, execution = settings or StudySettings(), execution or Execution()
    splits = parse_splits(settings, data)
    rules = rules_of(settings, settings.criterion[0] if settings.criterion else "weight_norm", model)
    specs = parse_edits(settings, rules)
    if older is None and any(spec.kind == "rewind" for spec in specs):
        raise UserError("rewind needs the state dict of an older checkpoint: give it as `older`")
    put_in = {"rewind": older or {}}
    if any(spec.kind == "mean" for spec in specs):
        put_in["mean"] = channel_means(model, data.train)
    tensors = {str(spec): put_in.get(spec.kind, {}) for spec in specs}

    def scores_of(ranking: RankingSettings) -> Scores:
        return trace(model, data, ranking)

    rankings = [] if settings.units else rankings_of(settings, model, data, epoch=0)
    ranked = ranked_units(model, data, settings, rankings, rules, scores_of)
    check_memory(ranked, settings.controls)
    variants = plan(
        model, ranked, specs, tensors, repeats=settings.repeats, controls=settings.controls, seed=settings.seed
    )
    frame = variants_frame(variants, epoch=0, selected_on=settings.traced_on, precision=settings.precision)
    ready = engine or engine_for(
        model, data.samples(splits[0]), loss=rules.loss, precision=settings.precision, execution=execution
    )

    def blocks(_: str, part: Part) -> Iterator[tuple[Block, Block]]:
        plan_of_part = block_plan(len(part.edits), len(part.samples))
        steps = ((rows, ready.run(part.edits, rows, part.samples.part(columns))) for rows, columns in plan_of_part)
        return beside_before(steps, np.arange(len(part.edits)) if part.numbers is None else part.numbers)

    parts = {split: parts_of(variants, data.samples(split), settings) for split in splits}
    counted, measured = measure(parts, blocks, data, settings)
    return study_effects(data, frame, counted, measured, seed=settings.seed)
