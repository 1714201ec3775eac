"""The whole flow on generated images: data, training, tracing, editing, measuring, showing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from .console import log
from .datasets.settings import SynthbirdsSettings
from .datasets.synthbirds.make import make_synthbirds
from .reporting.figures.write_figures import draw_figures
from .reporting.page.write_page import report
from .reporting.settings import FigureSettings
from .runs.run import Run
from .settings import Settings
from .studies.pipeline import study
from .studies.settings import StudySettings
from .studies.study import Study
from .training.settings import TrainSettings
from .training.train import train


class DemoSettings(Settings):
    """Size and seed of the demo; the defaults fit into four minutes on two cores."""

    seed: int = Field(0, ge=0, description="of images, training and draws")
    train: int = Field(1600, ge=100, description="training images")
    val: int = Field(200, ge=20, description="validation images")
    test: int = Field(600, ge=20, description="test images")
    image_size: int = Field(48, ge=32, description="side of the images in pixels")
    epochs: int = Field(8, ge=1, description="passes over the training images")
    controls: int = Field(99, ge=1, description="matched controls of each ranking")
    per_group: int = Field(40, ge=1, description="training samples a group on which controls are measured")


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Arguments:
        data: the data folder.
        run: the trained network's run.
        study: of it.
        figures: the report's figures as image files.
        report: the page that shows it all.
    """

    data: Path
    run: Run
    study: Study
    figures: tuple[Path, ...]
    report: Path


def demo(out: str | Path = "demo", settings: DemoSettings | None = None) -> Demo:
    """Draw synthbirds, train a ResNet-18 on them, trace its channels, edit the first ones of each ranking, measure the
    edited networks beside matched controls, and write the report. A stopped demo continues where it was.

    Arguments:
        out: folder for data, run and figures.
        settings: sizes and seed.

    Raises:
        UserError: the folder can't be written, or holds a demo with other settings.
    """
    settings, out = settings or DemoSettings(), Path(out)
    log("1/4 drawing images of two kinds of birds on land and water")
    birds = SynthbirdsSettings(
        train=settings.train, val=settings.val, test=settings.test, image_size=settings.image_size, seed=settings.seed
    )
    make_synthbirds(out / "birds", birds)
    log("2/4 training a ResNet-18 on them")
    training = TrainSettings(model="resnet18", epochs=settings.epochs, augment=False, seed=settings.seed)
    run = train(out / "birds", out / "run", training, resume=True)
    log("3/4 editing the network's first channels, beside matched random channels")
    plan = StudySettings(
        criterion=("weight_norm", "gradient"),
        size=("1", "3"),
        controls=settings.controls,
        controls_on=("train",),
        per_group=settings.per_group,
        seed=settings.seed,
    )
    result = study(run, plan)
    log("4/4 writing the report and its figures")
    figures = draw_figures("all", [run.path], out / "figures", FigureSettings(format="png"))
    return Demo(out / "birds", run, result, tuple(figures), report([run.path]))
