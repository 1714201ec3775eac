"""The whole flow on generated pictures: data, training, tracing, editing, measuring, showing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from .console import say
from .data.samples import Dataset
from .data.synthbirds import SynthbirdsSettings, make_synthbirds
from .report.figures import Figure, accuracy_over_epochs, changed_pictures, save_figure, shifts_against_controls
from .run import Run
from .settings import Settings
from .study.selected_sets import control_shifts
from .study.settings import StudySettings
from .study.study import Study, study
from .training.recipes import TrainSettings
from .training.train import train

PICTURES_SHOWN = 24


class DemoSettings(Settings):
    """Size and seed of the demo; the defaults fit into four minutes on two cores."""

    seed: int = Field(0, ge=0, description="of pictures, training and draws")
    train: int = Field(1600, ge=100, description="training pictures")
    val: int = Field(200, ge=20, description="validation pictures")
    test: int = Field(600, ge=20, description="test pictures")
    image_size: int = Field(48, ge=32, description="side of the pictures in pixels")
    epochs: int = Field(8, ge=1, description="passes over the training pictures")
    controls: int = Field(99, ge=1, description="matched controls of each ranking")
    per_group: int = Field(40, ge=1, description="training samples a group on which controls are measured")


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Arguments:
        data: the data folder.
        run: the trained network's run.
        study: of it.
        figures: picture files.
    """

    data: Path
    run: Run
    study: Study
    figures: tuple[Path, ...]


def demo(out: str | Path = "demo", settings: DemoSettings | None = None) -> Demo:
    """Draw synthbirds, train a ResNet-18 on them, trace its channels, edit the first ones of each ranking, and measure
    the edited networks beside matched controls. A stopped demo continues where it was.

    Arguments:
        out: folder for data, run and figures.
        settings: sizes and seed.

    Raises:
        UserError: the folder can't be written, or holds a demo with other settings.
    """
    settings, out = settings or DemoSettings(), Path(out)
    say("1/4 drawing pictures of two kinds of birds on land and water")
    birds = SynthbirdsSettings(
        train=settings.train, val=settings.val, test=settings.test, image_size=settings.image_size, seed=settings.seed
    )
    make_synthbirds(out / "birds", birds)
    say("2/4 training a ResNet-18 on them")
    training = TrainSettings(model="resnet18", epochs=settings.epochs, augment=False, seed=settings.seed)
    run = train(out / "birds", out / "run", training, resume=True)
    say("3/4 editing the network's first channels, beside matched random channels")
    plan = StudySettings(
        criterion=("magnitude", "gradient"),
        size=("3",),
        controls=settings.controls,
        controls_on=("train",),
        per_group=settings.per_group,
        seed=settings.seed,
    )
    result = study(run, plan)
    say("4/4 drawing figures")
    figures = draw_figures(run, result, out / "figures")
    return Demo(out / "birds", run, result, figures)


def draw_figures(run: Run, result: Study, folder: Path) -> tuple[Path, ...]:
    """Accuracy over the epochs, shifts against controls for each split, and the training pictures that change their
    answer under the selected set that costs a minority group most."""
    record, effects = run.record.data, result.effects()
    accuracy = folder / "accuracy.png"
    save_figure(accuracy_over_epochs(run.history(), record.groups, record.minority), accuracy)
    files = [accuracy]
    controls = control_shifts(result.results(), result.variants())
    for split in dict.fromkeys(effects["split"]):
        files.append(folder / f"shifts_{split}.png")
        save_figure(shifts_against_controls(effects, controls, split), files[-1])
    files.append(folder / "changed_pictures.png")
    save_figure(_changed(run.read_data(), result), files[-1])
    return tuple(files)


def _changed(data: Dataset, result: Study) -> Figure:
    effects = result.effects()
    minority = effects[(effects["split"] == "train") & effects["minority"]]
    worst = minority.loc[minority["shift"].idxmin()]
    variants, outcomes = result.variants(), result.outcomes("train")
    chosen = variants[(variants["selected_set"] == worst["selected_set"]) & (variants["family"] == "selected")]
    before = outcomes[outcomes["variant"] == -1].set_index("sample")["predicted"]
    after = outcomes[outcomes["variant"] == chosen["variant"].iloc[0]].set_index("sample")["predicted"]
    changed = before.index[before != after.reindex(before.index)]
    order = np.argsort(~np.isin(data.g[changed], data.minority), kind="stable")
    shown = changed[order][:PICTURES_SHOWN]
    title = f"Training pictures whose answer changes with {worst['units']} zeroed ({len(shown)} of {len(changed)})"
    return changed_pictures(data, list(shown), list(before[shown]), list(after[shown]), title)
