"""The folders of the paper's commands, the epochs of the research code, and its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ..console import log
from ..errors import UserError
from ..runs.import_settings import ImportSettings
from ..runs.importing import import_network
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
"""File names of published weights below `experiments/`."""

STUDIED_EPOCH = 40
"""The research code's `epoch_40`. It counts from 0, so this is the network after 41 epochs."""

CELEBA_EPOCH = 19
"""The epoch, counted from 0, from which fine-tuning starts on CelebA."""

PRUNED_FRACTION = 0.01
"""Fraction of the weights that fine-tuning prunes."""

REWINDS = (5, 10)
_CHECKPOINT = re.compile(r"epoch_(\d+)_checkpoints\.pth\.tar")
_RUN_FILE = "run.json"


def erm_folder(experiments: Path, arch: str, dataset: str) -> Path:
    """Folder of the run of ERM training, which all others read. It also holds the threshold study's files."""
    return experiments / f"{arch}_{dataset}_group_unbalanced_erm"


def channel_folder(experiments: Path, arch: str, dataset: str, split: str) -> Path:
    """Folder of the channel studies' result files for one split."""
    return experiments / f"{arch}_{dataset}_{split}_group_unbalanced_erm"


def fine_tuning_folder(experiments: Path, arch: str, dataset: str) -> Path:
    """Folder of the run of fine-tuning with pruning."""
    return experiments / f"{arch}_{dataset}_group_unbalanced_mag_{PRUNED_FRACTION}"


def stored_epoch(run: Run, research_epoch: int = STUDIED_EPOCH) -> int:
    """The epoch of a run that corresponds to an epoch of the research code.

    If the run has no such epoch, its last one is used and a message is logged.

    Arguments:
        run: run of ERM training.
        research_epoch: the research code's count, which starts at 0.

    Raises:
        UserError: the run has no checkpoint.
    """
    if research_epoch + 1 in run.epochs():
        return research_epoch + 1
    last = run.choose_epoch("last")
    log(
        f"{run.path} has no epoch_{research_epoch} (the network after {research_epoch + 1} epochs of training; the "
        f"research code counts from 0): using its last one, after {last}"
    )
    return last


def research_checkpoints(folder: Path) -> dict[int, Path]:
    """The research code's checkpoints in a folder, by their epoch, counted from 0."""
    return {int(m[1]): file for file in folder.glob("*.pth.tar") if (m := _CHECKPOINT.fullmatch(file.name))}


def opened_run(
    folder: Path, arch: str, data: Path | None, image_size: int | None, execution: Execution | None = None
) -> Run:
    """Open the run in a folder.

    If the folder holds checkpoints of the research code instead, they are imported into the same folder first: the one
    that is studied, and those to which the paper's grids rewind.

    Arguments:
        folder: folder of ERM training.
        arch: architecture of the checkpoints.
        data, image_size: data folder and image size, needed for an import.
        execution: device, workers and batch size of an import.

    Raises:
        UserError: the folder holds neither a run nor such a checkpoint, or the import fails.
    """
    run, imported = Run(folder), folder.with_name(f".{folder.name}.imported")
    if run.exists:
        return run
    checkpoints = research_checkpoints(folder)
    if not checkpoints:
        raise UserError(
            f"{folder} holds no network: train one with scripts/SpuriousCorrelationPretrainingErm.py, "
            "or put checkpoints of the research code there (epoch_40_checkpoints.pth.tar)"
        )
    if not Run(imported).exists:
        if data is None:
            raise UserError(f"the checkpoints in {folder} need their data: name the data set's folder")
        files = tuple(checkpoints[epoch] for epoch in _epochs_to_import(checkpoints))
        settings = ImportSettings(
            model=arch, weights=files, image_size=image_size, loss="cross_entropy_on_probabilities"
        )
        import_network(data, imported, settings, execution=execution)
    # A folder with run.json is a run, so this file is moved last.
    for entry in sorted(imported.iterdir(), key=lambda entry: entry.name == _RUN_FILE):
        entry.rename(folder / entry.name)
    imported.rmdir()
    return run


def _epochs_to_import(available: Collection[int]) -> list[int]:
    studied = STUDIED_EPOCH if STUDIED_EPOCH in available else max(available)
    wanted = [*(studied - back for back in (*REWINDS, 0)), CELEBA_EPOCH]
    return [epoch for epoch in wanted if epoch in available]
