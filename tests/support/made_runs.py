"""Runs without a training: their predictions are random."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tiny_networks
import torch
import yaml
from PIL import Image

import spurious_memorization as sm
from spurious_memorization.datasets.settings import DataSettings
from spurious_memorization.networks.build import NetworkSettings
from spurious_memorization.runs.records import RunRecord, TrainingCost, data_record, versions

COUNTS = {"train": (40, 6, 9, 45), "val": (14, 12, 11, 13), "test": (20, 24, 16, 10)}

SETTINGS = {"model": "tiny_networks:small_convnet", "objective": {"name": "erm"}, "epochs": 3, "lr": 0.1, "start": None}


def make_data(folder: Path, counts: Mapping[str, tuple[int, ...]] = COUNTS) -> Path:
    """Gray images of 2 classes x 2 colors.

    Arguments:
        folder: where they are written.
        counts: number of images per group, for each split.
    """
    folder.mkdir(parents=True)
    rows = []
    for split, numbers in counts.items():
        for group, n in enumerate(numbers):
            for k in range(n):
                name = f"{split}_{group}_{k:02d}.png"
                Image.fromarray(np.full((8, 8, 3), 50 * group + k, np.uint8)).save(folder / name)
                rows.append((name, group // 2, group % 2, split))
    pd.DataFrame(rows, columns=["path", "y", "a", "split"]).to_csv(folder / "metadata.csv", index=False)
    names = {"image_size": 8, "classes": ["bird", "cat"], "attributes": {"a": ["day", "night"]}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(names))
    return folder


def make_run(
    path: Path,
    folder: Path,
    objective: str = "erm",
    *,
    seed: int = 0,
    epochs: int = 3,
    training_cost: TrainingCost | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> sm.Run:
    """A run with random predictions. A sample is right with a probability that depends on epoch, split and group."""
    data, run = sm.read_data(folder), sm.Run(path)
    given = {**SETTINGS, "seed": seed, "objective": {"name": objective, **(options or {})}, **settings}
    network = NetworkSettings(model="tiny_networks:small_convnet", n_classes=2, image_size=8)
    run.create(
        RunRecord(
            origin="train",
            data=data_record(data, folder, DataSettings()),
            network=network,
            settings=given,
            best_by="average",
            versions=versions(),
            training_cost=training_cost,
            trained_start=given["start"] is not None,
        )
    )
    rng = np.random.default_rng([seed, *map(ord, str(given))])
    history = []
    for epoch in range(epochs + 1):
        for split in data.splits:
            samples = data.samples(split)
            right = rng.random(len(samples)) < rng.uniform(0.3, 0.9, 4)[samples.g]
            predicted = np.where(right, samples.y, 1 - samples.y)
            run.save_predictions(epoch, split, samples.index, _probabilities(predicted, seed))
            answers = pd.DataFrame({"group": samples.g, "n": 1, "correct": right.astype(int), "loss": 0.5})
            history.append(answers.groupby("group").sum().reset_index().assign(epoch=epoch, split=split))
        torch.manual_seed(100 * seed + epoch)
        run.save_network(epoch, tiny_networks.small_convnet())
    run.save_history(pd.concat(history, ignore_index=True)[["epoch", "split", "group", "n", "correct", "loss"]])
    return run


def _probabilities(predicted: np.ndarray, seed: int) -> np.ndarray:
    """Random probabilities [samples, 2] in which the predicted class is the likeliest."""
    confidence = np.random.default_rng([seed, len(predicted)]).uniform(0.51, 1, len(predicted))
    of_one = np.where(predicted == 1, confidence, 1 - confidence)
    return np.stack([1 - of_one, of_one], axis=1).astype(np.float32)


def convolutional_head(num_classes: int = 2) -> torch.nn.Module:
    """A network whose logits are means of a convolution's outputs: it has no linear layer."""
    convolutions = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, num_classes, 1)
    return torch.nn.Sequential(*convolutions, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
