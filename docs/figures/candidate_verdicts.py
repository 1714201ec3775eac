"""Print the table of verdicts in docs/labels-only.md: `python docs/figures/candidate_verdicts.py` (half an hour).

Known networks are asked about twice: with the true minority group, and with the group that three pairs of twins (XRM)
draw instead. The settings are those of the demo's controls.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

import spurious_memorization as sm
from spurious_memorization.calibration.known_answers import SETTINGS
from spurious_memorization.calibration.networks import (
    BATCH,
    EPOCHS,
    FAMILIES,
    LR,
    WEIGHT_DECAY,
    Family,
    on_one_thread,
    small_network,
)
from spurious_memorization.calibration.plants import (
    FIRST_LAYER,
    KnownNetwork,
    feature_plant,
    memory_plant,
    never_trained,
)
from spurious_memorization.datasets.candidate_groups import ATYPICAL, GROUP_NAME, TYPICAL, with_candidate_roles
from spurious_memorization.datasets.groups import Groups
from spurious_memorization.discovery.candidates import auroc, is_atypical
from spurious_memorization.discovery.xrm import twin_answers, unlike_by_twins
from spurious_memorization.statistics.verdicts import VERDICTS
from spurious_memorization.training.settings import TrainExecution

SEEDS = range(4)
POINTS = 60
"""Accuracy points of the true minority group that planted channels hold."""
PAIRS = 3
"""Pairs of twins, as `spurmem discover` trains them by default."""


def main() -> None:
    print("| network | family | seed | AUROC | drawn (true ones) | verdict, true group | verdict, drawn group |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in ("memory", "feature", "never trained"):
        for family in FAMILIES:
            for seed in SEEDS:
                print(row(kind, family, seed), flush=True)


def row(kind: str, family: Family, seed: int) -> str:
    """One network: how well its minority group is drawn, and the strongest verdict on the true and the drawn group."""
    known = made(kind, family, seed)
    if not known.is_accepted:
        return f"| {kind} | {family} | {seed} | not accepted |"
    data, score = known.data, scores(known, family)
    true = known.group if known.group is not None else data.minority[0]
    label = data.groups.label_of(true)
    drawn = drawn_groups(data, is_atypical("xrm", score, data.y))
    of_label = (data.split == "train") & (data.y == label)
    is_drawn = of_label & (drawn.a == 0)
    found = auroc(score[of_label], data.g[of_label] == true)
    counts = f"{is_drawn.sum()} ({(is_drawn & (data.g == true)).sum()})"
    names = data.groups.names[true], f"{data.groups.classes[label]}, {ATYPICAL}"
    verdicts = [verdict(known, of, name, kind, family) for of, name in zip((data, drawn), names, strict=True)]
    return f"| {kind} | {family} | {seed} | {found:.2f} | {counts} | {' | '.join(verdicts)} |"


def made(kind: str, family: Family, seed: int) -> KnownNetwork:
    match kind:
        case "memory":
            return memory_plant(family, seed, POINTS)
        case "feature":
            return feature_plant(family, seed)
        case _:
            return never_trained(family, seed)


def scores(known: KnownNetwork, family: Family) -> np.ndarray:
    """The mean score of several pairs of twins, [samples]. They learn from labels alone."""
    found = []
    for pair in range(PAIRS):
        config = sm.TrainSettings(
            epochs=EPOCHS[family],
            batch_size=BATCH,
            optimizer="adamw",
            lr=LR[family],
            weight_decay=WEIGHT_DECAY,
            seed=pair,
        )
        twins = [small_network(family, 2 * pair + k) for k in range(2)]
        answers = twin_answers(twins, known.data, config, EPOCHS[family] // 2, TrainExecution(device="cpu"))
        found.append(unlike_by_twins(answers))
    return np.mean(found, axis=0)


def drawn_groups(data: sm.Dataset, atypical: np.ndarray) -> sm.Dataset:
    """The data with the groups that were drawn."""
    groups = Groups(data.groups.classes, (ATYPICAL, TYPICAL), GROUP_NAME)
    drawn = replace(data, groups=groups, a=np.where(atypical, 0, 1), named_minority=())
    return with_candidate_roles(drawn)


def verdict(known: KnownNetwork, data: sm.Dataset, group: str, kind: str, family: Family) -> str:
    """The strongest verdict of a study on one group, in training."""
    if not data.train_counts[data.groups.index(group)]:
        return "no samples"
    asked = {"group": (group,), "tensors": (FIRST_LAYER[family][0],) if kind == "never trained" else ()}
    with on_one_thread():
        effects = sm.study_in_memory(known.model, data, SETTINGS.model_copy(update=asked)).effects()
    tests = effects[(effects["split"] == "train") & (effects["group_name"] == group)]
    return min(tests["verdict"], key=VERDICTS.index)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
