"""The flags of the paper's scripts, under its names: what each script takes, and the settings that they stand for."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ..errors import UserError
from ..runs.run import Run
from ..settings import Settings
from ..studies.settings import StudySettings
from ..training.names import Recipe
from ..training.settings import TrainSettings, with_changes
from .folders import EXPERIMENTS, WEIGHT_FILES

Mode = Literal["zero", "random_init", "random_noise", "rewind"]

REPEATS = {"weight_norm": 10, "gradient": 3}
"""How often a random edit of units selected by each criterion is repeated."""


class Experiment(Settings):
    """What every script takes: data set, network and where the data are."""

    experiment_dataset: Literal["celeba", "waterbirds"] = Field("waterbirds", description="celeba or waterbirds")
    experiment_arch: str = Field("resnet50", description="resnet50, deit_tiny|small|base|large, or another timm name")
    celeba_dataset_path: Path | None = Field(None, description="folder of CelebA, in any of its layouts")
    waterbird_dataset_path: Path | None = Field(None, description="folder of Waterbirds")
    image_size: int | None = Field(None, ge=1, description="side of the input in pixels; 224 if not given")
    seed: int = Field(0, ge=0, description="of every draw")

    @property
    def data_folder(self) -> Path | None:
        """The folder of the data set that is meant, if it is named."""
        return self.celeba_dataset_path if self.experiment_dataset == "celeba" else self.waterbird_dataset_path

    @property
    def named_data_folder(self) -> Path:
        """The folder of the data set that is meant.

        Raises:
            UserError: it isn't named.
        """
        if self.data_folder is None:
            flag = "celeba_dataset_path" if self.experiment_dataset == "celeba" else "waterbird_dataset_path"
            raise UserError(f"where is {self.experiment_dataset}? Name its folder with --{flag}")
        return self.data_folder


class Pretraining(Experiment):
    """ERM training by the released script, or by the recipe that its README states."""

    recipe: Recipe = Field("paper-script", description="paper-script, paper-readme or standard")
    epochs: int | None = Field(None, ge=0, description="passes over the training samples; the recipe's if not given")
    weights: str | None = Field(
        None, description="starting weights: none, timm or a file; the recipe's, from experiments/, if not given"
    )

    def training(self) -> TrainSettings:
        """Settings of `sm.train`; what isn't stated is left to the recipe."""
        return training_of(self, TrainSettings(model=self.experiment_arch), EXPERIMENTS)


class Finetuning(Experiment):
    """Flags of fine-tuning with pruning, which starts from the network of ERM training."""

    epochs: int | None = Field(None, ge=0, description="passes over the training samples; 21 if not given")
    weights: str | None = Field(None, description="RUN@EPOCH to start from; the ERM training's epoch_40 if not given")


def training_of(stated: Any, base: TrainSettings, experiments: Path) -> TrainSettings:
    """ERM training with what a user states (recipe, epochs, weights, image_size, seed; None is not stated) in place of
    `base`. Published weights that lie below `experiments` under their names come before a download."""
    chosen = _with_stated(base, stated, ("recipe", "epochs", "weights", "image_size", "seed"))
    file = experiments / WEIGHT_FILES.get(chosen.model, "")
    if starts_pretrained(chosen) and "weights" not in chosen.model_fields_set and file.is_file():
        return with_changes(chosen, weights=str(file))
    return chosen


def starts_pretrained(settings: TrainSettings) -> bool:
    """One of the paper's recipes starts this network from published weights."""
    return settings.recipe == "paper-readme" or settings.model.startswith("deit")


def fine_tuning_of(stated: Any, base: TrainSettings, start: str, run: Run) -> TrainSettings:
    """Fine-tuning of a run's network, with what a user states (epochs, seed) in place of `base`."""
    chosen = _with_stated(base, stated, ("epochs", "seed"))
    return with_changes(chosen, start=start, image_size=run.record.data.settings.image_size)


def _with_stated(base: TrainSettings, stated: Any, names: tuple[str, ...]) -> TrainSettings:
    values = {name: getattr(stated, name) for name in names}
    return with_changes(base, **{name: value for name, value in values.items() if value is not None})


class Modification(Experiment):
    """What the three studies take: how the selected units are changed."""

    modification_mode: Mode = Field("zero", description="zero, random_init, random_noise or rewind")
    noise_std: float = Field(0.0, ge=0, description="factor of the noise of random_init and random_noise")
    row_back_n_epochs: int = Field(0, ge=0, description="how many epochs older the checkpoint of rewind is")

    @model_validator(mode="after")
    def _rewinds_somewhere(self) -> Modification:
        if self.modification_mode == "rewind" and not self.row_back_n_epochs:
            raise ValueError("modification_mode rewind needs row_back_n_epochs from 1 up")
        return self

    @property
    def edit(self) -> str:
        """As `--edit` takes it."""
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
    top_k: int = Field(3, ge=1, description="number of channels")

    def study(self, criterion: str, epoch: int) -> StudySettings:
        """Settings of `sm.study`."""
        return StudySettings(
            **_paper_study(criterion, self.seed),
            epoch=str(epoch),
            size=(str(self.top_k),),
            edit=(self.edit,),
            traced_on=self.experiment_split,
            split=(self.experiment_split,),
        )


class ThresholdStudy(Modification):
    """Flags of the study of single weights beyond a threshold."""

    modification_percentage: float = Field(0.05, gt=0, lt=1, description="fraction of the weights (0.05 is 5 %)")
    if_smallest_magnitude: bool = Field(False, description="the smallest weights instead of the largest")
    dropout_p: float = Field(0.0, ge=0, lt=1, description="probability with which a selected weight is spared")

    def study(self, epoch: int) -> StudySettings:
        """Settings of `sm.study`."""
        return StudySettings(
            **_paper_study("weight_norm", self.seed),
            unit="weight",
            epoch=str(epoch),
            size=(percent(self.modification_percentage),),
            smallest=self.if_smallest_magnitude,
            dropout_p=self.dropout_p,
            edit=(self.edit,),
            split=("train",),
        )


def percent(fraction: float) -> str:
    """A fraction as `--size` takes it, without a binary remainder: 0.075 is "7.5%"."""
    return f"{Decimal(str(fraction)) * 100:f}%"


def _paper_study(criterion: str, seed: int) -> dict[str, Any]:
    return {
        "preset": "paper",
        "criterion": (criterion,),
        "repeats": REPEATS[criterion],
        "controls": 0,
        "cross_fit": False,
        "seed": seed,
    }
