"""Where the paper's commands keep things: folders that chain, the research code's epochs, and its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..console import log
from ..errors import UserError
from ..runs.importing import ImportSettings, import_network
from ..runs.run import Run
from ..settings import Execution

EXPERIMENTS = Path("experiments")

WEIGHT_FILES = {
    "resnet50": "resnet50-19c8e357.pth",
    "deit_tiny": "deit_tiny_patch16_224-a1311bcf.pth",
    "deit_small": "deit_small_patch16_224-cd65a155.pth",
    "deit_base": "deit_base_patch16_224-b5f2ef4d.pth",
    "deit_large": "jx_vit_large_patch16_224_in21k-606da67d.pth",
}
"""Published weights, under the names by which they are kept below `experiments/`."""

STUDIED_EPOCH = 40
"""`epoch_40` of the research code, which counts from 0: the network after 41 epochs."""

CELEBA_EPOCH = 19
"""That from which fine-tuning starts on CelebA."""

PRUNED_FRACTION = 0.01
"""Share of the weights that fine-tuning prunes."""

REWINDS = (5, 10)
_CHECKPOINT = re.compile(r"epoch_(\d+)_checkpoints\.pth\.tar")
_MARK = "run.json"


def erm_folder(experiments: Path, arch: str, dataset: str) -> Path:
    """The run of ERM training, which studies and fine-tuning read; the threshold study's files stand there too."""
    return experiments / f"{arch}_{dataset}_group_unbalanced_erm"


def channel_folder(experiments: Path, arch: str, dataset: str, split: str) -> Path:
    """Where the channel studies' files on one split stand."""
    return experiments / f"{arch}_{dataset}_{split}_group_unbalanced_erm"


def fine_tuning_folder(experiments: Path, arch: str, dataset: str) -> Path:
    """The run of fine-tuning with pruning."""
    return experiments / f"{arch}_{dataset}_group_unbalanced_mag_{PRUNED_FRACTION}"


def stored_epoch(run: Run, theirs: int = STUDIED_EPOCH) -> int:
    """The epoch of a run that the research code calls `theirs`, or the last one, with a word about it.

    Raises:
        UserError: the run has no checkpoint.
    """
    if theirs + 1 in run.epochs():
        return theirs + 1
    last = run.choose_epoch("last")
    log(
        f"{run.path} has no epoch_{theirs} (the research code counts from 0: it is the network after {theirs + 1} "
        f"epochs of training): taking its last one, after {last}"
    )
    return last


def research_checkpoints(folder: Path) -> dict[int, Path]:
    """The research code's checkpoints in a folder, by its count of epochs."""
    return {int(m[1]): file for file in folder.glob("*.pth.tar") if (m := _CHECKPOINT.fullmatch(file.name))}


def opened_run(
    folder: Path, arch: str, data: Path | None, image_size: int | None, execution: Execution | None = None
) -> Run:
    """The run in a folder. Checkpoints of the research code that stand there are first imported beside themselves:
    the one that is studied and those to which the paper's grids rewind.

    Arguments:
        folder: of ERM training.
        arch: architecture of checkpoints that are to be imported.
        data, image_size: data folder and image size that an import needs.

    Raises:
        UserError: there is neither a run nor such a checkpoint, or the import fails.
    """
    run, imported = Run(folder), folder.with_name(f".{folder.name}.imported")
    if run.exists:
        return run
    there = research_checkpoints(folder)
    if not there:
        raise UserError(
            f"{folder} holds no network: train one with scripts/SpuriousCorrelationPretrainingErm.py, "
            "or put checkpoints of the research code there (epoch_40_checkpoints.pth.tar)"
        )
    if not Run(imported).exists:
        if data is None:
            raise UserError(f"the checkpoints in {folder} need their data: name the data set's folder")
        files = tuple(there[epoch] for epoch in _worth_importing(there))
        settings = ImportSettings(
            model=arch, weights=files, image_size=image_size, loss="cross_entropy_on_probabilities"
        )
        import_network(data, imported, settings, execution=execution)
    for entry in sorted(imported.iterdir(), key=lambda entry: entry.name == _MARK):  # what makes it a run comes last
        entry.rename(folder / entry.name)
    imported.rmdir()
    return run


def _worth_importing(there: Iterable[int]) -> list[int]:
    studied = STUDIED_EPOCH if STUDIED_EPOCH in there else max(there)
    wanted = [*(studied - back for back in (*REWINDS, 0)), CELEBA_EPOCH]
    return [epoch for epoch in wanted if epoch in there]
