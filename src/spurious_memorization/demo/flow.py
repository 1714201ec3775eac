"""The demo: every step on generated images, from drawing them to the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..console import log
from ..datasets.settings import SynthbirdsSettings
from ..datasets.synthbirds.make import make_synthbirds
from ..reporting.figures.write_figures import draw_figures
from ..reporting.page.write_page import report
from ..reporting.settings import FigureSettings
from ..runs.run import Run
from ..studies.pipeline import study
from ..studies.settings import StudySettings
from ..studies.study import Study
from ..training.settings import TrainSettings
from ..training.train import train
from .settings import DemoSettings


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo made.

    Arguments:
        data: the data folder.
        run: the run of the trained network.
        study: the study of that run.
        figures: the figures of the report, as image files.
        report: the report page.
    """

    data: Path
    run: Run
    study: Study
    figures: tuple[Path, ...]
    report: Path


def run_demo(out: str | Path = "demo", settings: DemoSettings | None = None) -> Demo:
    """Run every step on generated images: draw them, train a ResNet-18, study it, and write the report.

    The study ranks the channels of the network, edits the first ones, and compares them with random ones of the same
    layers. The same call continues a demo that was stopped.

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
    log("2/4 training a ResNet-18 on these images")
    training = TrainSettings(model="resnet18", epochs=settings.epochs, augment=False, seed=settings.seed)
    run = train(out / "birds", out / "run", training, resume=True)
    log("3/4 editing the first channels of each ranking, and random channels of the same layers")
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
    return Demo(data=out / "birds", run=run, study=result, figures=tuple(figures), report=report([run.path]))
