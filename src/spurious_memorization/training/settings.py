"""Settings of training and of mitigation: the flags of `spurmem train` and `spurmem mitigate`.

This module imports no torch, so that the command line can show its help quickly.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..datasets.settings import DataSettings
from ..networks.names import LossName, Precision, WeightFormat
from ..runs.epochs import BestRule
from ..settings import MAX_COUNT, MAX_EPOCHS, MAX_SEED, Execution, Place, WorkerExecution
from .find_objective import AnyObjective, objective_names
from .names import Recipe

COMPARED = (
    "erm-continue",
    "pruned-contrast:mask=magnitude-smallest",
    "pruned-contrast:mask=magnitude-largest",
    "pruned-contrast",
    "pruned-contrast:mask=none",
    "reweighting:by=class",
    "reweighting",
    "balanced-sampling",
    "reweighting:power=0.5",
    "subsampling",
    "group-dro",
    "mixup",
    "lisa",
    "weight-averaging",
    "example-tied-dropout",
    "afr",
    "self",
    "dfr",
    "dpe",
    "neuron-tune",
    "eva",
    "prune-critical",
    "prune-critical:random=true",
)
"""The objectives that `mitigate` compares with ERM by default."""


class NetworkTraining(DataSettings):
    """The settings of a training that do not depend on its objective.

    The recipe fills in what the user leaves open. The defaults here are those of the recipe `standard` for a user's
    own data.
    """

    model: str = Field(
        "resnet18",
        description="a timm name, birds_resnet18, deit_tiny|small|base|large, hf:PATH, open_clip:NAME, or "
        "module:factory",
    )
    recipe: Recipe = Field("standard", description="sets the defaults, depending on the data set")
    weights: str = Field(
        "none",
        description="starting weights: none, pretrained (those of the model's folder, tag or library), timm (its "
        "download), package (those of birds_resnet18), or a file",
    )
    weight_key: str | None = Field(None, description="entry of --weights that holds the state dict")
    weight_format: WeightFormat = Field(
        "auto", description="of --weights: auto, plain, or research (the code of You et al., 2025)"
    )
    freeze: Literal["none", "encoder"] = Field(
        "none", description="encoder: train the head alone, on features that the other layers give once"
    )
    head: tuple[str, ...] = Field((), description="layer that gives the logits; by default found by tracing")
    epochs: int = Field(12, ge=0, le=MAX_EPOCHS, description="passes over the training samples")
    batch_size: int = Field(64, ge=1, le=MAX_COUNT, description="samples per step")
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="adam, adamw or sgd")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of sgd")
    schedule: Literal["constant", "plateau", "cosine"] = Field("constant", description="schedule of the learning rate")
    plateau_patience: int = Field(
        3, ge=0, le=MAX_EPOCHS, description="epochs without progress before plateau halves the rate"
    )
    loss: LossName = Field("cross_entropy", description="loss of a sample")
    augment: bool = Field(True, description="random crops and flips in training")
    norm_eps: float | None = Field(
        None, gt=0, description="epsilon of the layer norms; the network's own value by default"
    )
    precision: Precision | Literal["auto"] = Field(
        "float32", description="float32, bf16, or auto: the faster one, measured before the first epoch"
    )
    checkpoint_every: int = Field(
        1, ge=1, le=MAX_EPOCHS, description="epochs between checkpoints; the last one is always kept"
    )
    best_by: BestRule = Field("worst_group_accuracy", description="validation rule of --epoch best")

    def given(self) -> dict[str, Any]:
        """The settings of training that the user gave. The recipe fills in the others."""
        names = NetworkTraining.model_fields.keys() & self.model_fields_set
        return {name: getattr(self, name) for name in names}


class TrainSettings(NetworkTraining):
    """Everything that changes the result of a training."""

    objective: AnyObjective = Field(
        "erm",
        validate_default=True,
        description=f"{', '.join(objective_names())}; with options as in pruned-contrast:mask=none,fraction=0.05",
    )
    start: str | None = Field(None, alias="from", description="start from another run: RUN or RUN@EPOCH")
    leave_out: tuple[str, ...] = Field(
        (), description="groups whose training samples are left out: the training of a twin for `transplant`"
    )
    hold_out: float = Field(
        0.0, ge=0, le=0.9, description="share of the training samples held out, for heads that are fitted on them later"
    )
    seed: int = Field(
        0, ge=0, le=MAX_SEED, description="seed of the starting weights, the order of samples and the augmentation"
    )

    @property
    def known_precision(self) -> Precision:
        """The precision. `train` replaces "auto" before it is needed; what is trained in memory does not measure."""
        return "float32" if self.precision == "auto" else self.precision


class TrainExecution(Execution):
    """How a training is carried out. None of this changes results."""

    log: Literal["tensorboard", "wandb", "mlflow"] | None = Field(
        None, description="log curves to tensorboard, wandb or mlflow"
    )
    keep_pruned: bool = Field(
        False, description="also store the pruned networks of an objective that prunes, as RUN/pruned"
    )


class SharedExecution(TrainExecution):
    """How one training is carried out, perhaps by several processes. They change results by rounding at most."""

    on: Place = Field(
        "here", description="where to train: here, or in processes:N of this machine, each with its part of every batch"
    )


class TrainingsExecution(TrainExecution, WorkerExecution):
    """How several trainings are carried out that don't depend on each other. None of this changes results."""

    @property
    def of_each(self) -> TrainExecution:
        """How each training is carried out, wherever it runs."""
        return TrainExecution(**self.model_dump(exclude={"on"}))


class MitigateSettings(NetworkTraining):
    """Everything that changes the result of a mitigation. `epochs` and the other settings of training are ERM's."""

    precision: Precision = Field("float32", description="float32 or bf16")
    objective: tuple[AnyObjective, ...] = Field(
        COMPARED, validate_default=True, description="objectives to compare with ERM"
    )
    seeds: str = Field("0..2", description="seeds of the trainings")
    finetune_epochs: int = Field(
        6, ge=1, le=MAX_EPOCHS, description="epochs of pruned-contrast, which starts from ERM's last epoch"
    )
    finetune_lr: float = Field(2e-4, gt=0, description="learning rate of objectives that start from ERM's last epoch")
    hold_out: float = Field(
        0.2, gt=0, le=0.9, description="share of the training samples that the first network of afr does not see"
    )
    jtt: bool = Field(True, description="also try JTT")
    jtt_epochs: tuple[Annotated[int, Field(ge=1, le=MAX_EPOCHS)], ...] = Field(
        (1, 2), description="epochs of ERM whose errors JTT tries"
    )
    jtt_upweights: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = Field(
        (5, 20), description="upweights that JTT tries"
    )

    @model_validator(mode="after")
    def _jtt_has_its_own_options(self) -> MitigateSettings:
        if any(objective.other_run is not None for objective in self.objective):
            raise ValueError("jtt is tried with jtt_epochs and jtt_upweights: leave it out of the objectives")
        return self


def with_changes(settings: TrainSettings, **changes: Any) -> TrainSettings:
    """The settings with these values changed. What the user left to the recipe is still left to it."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return TrainSettings(**{**given, **changes})
