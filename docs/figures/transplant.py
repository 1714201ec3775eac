"""Print the table of transplants in docs/scores.md: `python docs/figures/transplant.py`. It takes some minutes.

Networks hold a part of a minority group in planted channels. Their twins continue from an early epoch without the held
samples. The planted channels get the twin's weights.
"""

from __future__ import annotations

import numpy as np
import torch

import spurious_memorization as sm
from spurious_memorization.calibration.networks import FAMILIES, accuracies
from spurious_memorization.calibration.plants import memory_plant, memory_twin
from spurious_memorization.datasets.samples import Samples
from spurious_memorization.edits import edited, transplant

SEEDS = (3, 4, 5)
POINTS = 60
BRANCH = 2
"""The last epoch that the twins share with the networks."""


def main() -> None:
    torch.set_num_threads(1)
    print("| network | seed | channels | planted samples | other training samples | unseen samples | verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for family in FAMILIES:
        for seed in SEEDS:
            print(row(family, seed), flush=True)


def row(family: str, seed: int) -> str:
    """Accuracies of one network before and after the transplant, and the verdict of a study of the transplant."""
    known = memory_plant(family, seed, POINTS)
    if not known.is_accepted or known.units is None or known.group is None:
        return f"| {family} | {seed} | not accepted |"
    data, twin = known.data, memory_twin(family, seed, POINTS, BRANCH).state_dict()
    changed = edited(known.model, transplant(known.units, twin))
    parts = (
        data.train.at(np.sort(known.held)),
        data.train.at(np.setdiff1d(data.train.index, known.held)),
        Samples(data, np.flatnonzero((data.split != "train") & (data.g == known.group)), "test"),
    )
    cells = [f"{accuracy(known.model, part):.1f} → {accuracy(changed, part):.1f}" for part in parts]
    settings = sm.StudySettings(
        units=tuple(str(known.units).split(",")),
        edit=("transplant:from=twin@last",),
        controls=99,
        per_group=30,
        seed=seed,
    )
    effects = sm.study_in_memory(known.model, data, settings, twin=twin).effects()
    (verdict,) = effects[(effects["split"] == "train") & effects["minority"]]["verdict"]
    return f"| {family} | {seed} | {len(known.units)} | {' | '.join(cells)} | {verdict} |"


def accuracy(model: torch.nn.Module, samples: Samples) -> float:
    """Accuracy in percent over all groups together."""
    n = np.bincount(samples.g, minlength=len(samples.dataset.groups))
    names = samples.dataset.groups.names
    return 100 * sum(value * n[names.index(name)] for name, value in accuracies(model, samples).items()) / n.sum()


if __name__ == "__main__":
    main()
