"""The flags of the paper's scripts, under their original names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ..errors import UserError
from ..settings import MAX_COUNT, MAX_EPOCHS, MAX_IMAGE_SIZE, MAX_SEED, Settings
from ..training.names import Recipe

Mode = Literal["zero", "random_init", "random_noise", "rewind"]


class Experiment(Settings):
    """Flags of every script: the data set, its folder, and the network."""

    experiment_dataset: Literal["celeba", "waterbirds"] = Field("waterbirds", description="celeba or waterbirds")
    experiment_arch: str = Field("resnet50", description="resnet50, deit_tiny|small|base|large, or another timm name")
    celeba_dataset_path: Path | None = Field(None, description="folder of CelebA, in any of its layouts")
    waterbird_dataset_path: Path | None = Field(None, description="folder of Waterbirds")
    image_size: int | None = Field(
        None, ge=1, le=MAX_IMAGE_SIZE, description="side of the input in pixels; 224 if not given"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of every draw")

    @property
    def data_folder(self) -> Path | None:
        """The folder of the chosen data set; None if it is not given."""
        return self.celeba_dataset_path if self.experiment_dataset == "celeba" else self.waterbird_dataset_path

    @property
    def required_data_folder(self) -> Path:
        """The folder of the chosen data set.

        Raises:
            UserError: it is not given.
        """
        if self.data_folder is None:
            flag = "celeba_dataset_path" if self.experiment_dataset == "celeba" else "waterbird_dataset_path"
            raise UserError(f"the folder of {self.experiment_dataset} is not given: name it with --{flag}")
        return self.data_folder


class Pretraining(Experiment):
    """Flags of ERM training, by the released script or by the recipe that its README describes."""

    recipe: Recipe = Field("paper-script", description="paper-script, paper-readme or standard")
    epochs: int | None = Field(
        None, ge=0, le=MAX_EPOCHS, description="passes over the training samples; set by the recipe if not given"
    )
    weights: str | None = Field(
        None,
        description="starting weights: none, timm or a file; if not given, those of the recipe, from experiments/",
    )


class Finetuning(Experiment):
    """Flags of fine-tuning with pruning, which starts from the network of ERM training."""

    epochs: int | None = Field(
        None, ge=0, le=MAX_EPOCHS, description="passes over the training samples; 21 if not given"
    )
    weights: str | None = Field(
        None, description="start from RUN@EPOCH; if not given, from epoch_40 of ERM training (CelebA: epoch_19)"
    )


class Modification(Experiment):
    """Flags of the three studies: how the selected units are changed."""

    modification_mode: Mode = Field("zero", description="zero, random_init, random_noise or rewind")
    noise_std: float = Field(0.0, ge=0, description="factor of the noise of random_init and random_noise")
    row_back_n_epochs: int = Field(0, ge=0, le=MAX_EPOCHS, description="rewind: number of epochs to go back")

    @model_validator(mode="after")
    def _rewind_needs_epochs(self) -> Modification:
        if self.modification_mode == "rewind" and not self.row_back_n_epochs:
            raise ValueError("modification_mode rewind needs row_back_n_epochs of at least 1")
        return self

    @property
    def edit(self) -> str:
        """The edit in the form of the flag `--edit`."""
        match self.modification_mode:
            case "zero":
                return "zero"
            case "rewind":
                return f"rewind:epochs={self.row_back_n_epochs}"
            case kind:
                return f"{kind}:std={self.noise_std}"


class ChannelStudy(Modification):
    """Flags of the two channel studies."""

    experiment_split: Literal["train", "test"] = Field("train", description="split to select and measure on")
    top_k: int = Field(3, ge=1, le=MAX_COUNT, description="number of channels")


class ThresholdStudy(Modification):
    """Flags of the study of single weights beyond a threshold."""

    modification_percentage: float = Field(0.05, gt=0, lt=1, description="fraction of the weights (0.05 is 5 %)")
    if_smallest_magnitude: bool = Field(False, description="the smallest weights instead of the largest")
    dropout_p: float = Field(0.0, ge=0, lt=1, description="probability that a selected weight is left unchanged")
