"""The demo: two controls with a known answer, then every step on generated data, from making them to the report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ..calibration.known_answers import KnownAnswers, negative_control, positive_control
from ..console import log
from ..datasets.negated_pairs import make_negated_pairs
from ..datasets.settings import NETWORK_FOLDER, NegatedPairsSettings, SynthbirdsSettings
from ..datasets.synthbirds.make import make_synthbirds
from ..errors import UserError
from ..locks import locked
from ..memorization.scores import MemorizationScores, memorization_scores
from ..memorization.settings import MemorizationSettings
from ..reporting.figures.write_figures import draw_figures
from ..reporting.page.write_page import report
from ..reporting.settings import FigureSettings
from ..runs.run import Run
from ..stored_files import is_stored
from ..studies.pipeline import study
from ..studies.settings import StudySettings
from ..studies.study import Study
from ..training.find_objective import objective_from
from ..training.settings import TrainSettings
from ..training.train import train
from .settings import DemoSettings

CONTROLS_FILE = "controls.json"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo made.

    Arguments:
        controls: the tool's answers on the positive and the negative control.
        data: the data folder.
        run: the run of the trained network.
        scores: memorization scores of the training images.
        study: the study of that run.
        repaired: the run whose head was fitted anew.
        figures: the figures of the report, as image files.
        report: the report page.
    """

    controls: KnownAnswers
    data: Path
    run: Run
    scores: MemorizationScores
    study: Study
    repaired: Run
    figures: tuple[Path, ...]
    report: Path


def run_demo(out: str | Path = "demo", settings: DemoSettings | None = None) -> Demo:
    """Run every step on generated data, after two controls that show whether the tool works.

    The controls are small networks whose answer is known (see `known_answers`). Then images of birds, or pairs of
    sentences, are made, a network is trained on them, its training samples get memorization scores, a study selects
    channels, edits them and compares them with random ones, and DFR repairs the network. All of this ends in a report.
    The same call continues a demo that was stopped.

    Arguments:
        out: folder for the controls, data, runs and figures.
        settings: sizes and seed.

    Raises:
        UserError: the folder can't be written, or holds a demo with other settings.
    """
    settings, out = settings or DemoSettings(), Path(out)
    steps = _Steps()
    controls = _controls(out, settings.seed, steps)
    data, network = _make_data(out, settings, steps)
    steps.begin(f"training a small {_NETWORKS[settings.source]} on these data, by empirical risk minimization (ERM)")
    run = train(data, out / "erm", TrainSettings(epochs=settings.epochs, seed=settings.seed, **network), resume=True)
    steps.begin("memorization scores: training more such networks, each on a part of the data")
    resampled = MemorizationSettings(
        networks=settings.networks, epochs=settings.network_epochs, seed=settings.seed, **network
    )
    scores = memorization_scores(data, out / "scores", resampled)
    steps.begin("study: editing the first channels of a ranking, and random channels of the same layers")
    plan = StudySettings(
        criterion=("ablation",),
        size=("3",),
        controls=settings.controls,
        controls_on=("train",),
        per_group=settings.per_group,
        seed=settings.seed,
    )
    result = study(run, plan)
    steps.begin("repair: fitting a new head on balanced validation samples (DFR)")
    repair = TrainSettings(objective=objective_from("dfr"), start=f"{run.path}@last", seed=settings.seed, **network)
    repaired = train(data, out / "dfr", repair, resume=True)
    steps.begin("writing the report and its figures")
    runs = [run.path, repaired.path]
    figures = draw_figures("all", runs, out / "figures", FigureSettings(format="png"), memorization=scores.path)
    page = report(runs, out / "report.html", memorization=scores.path, controls=out / CONTROLS_FILE)
    return Demo(
        controls=controls,
        data=data,
        run=run,
        scores=scores,
        study=result,
        repaired=repaired,
        figures=tuple(figures),
        report=page,
    )


def _make_data(out: Path, settings: DemoSettings, steps: _Steps) -> tuple[Path, dict[str, str]]:
    """Make the data.

    Returns:
        Their folder, and the settings of the network if the recipe does not know it.
    """
    counts = {"train": settings.train, "val": settings.val, "test": settings.test, "seed": settings.seed}
    if settings.source == "negated-pairs":
        steps.begin("writing pairs of sentences, with and without a negation")
        make_negated_pairs(out / "pairs", NegatedPairsSettings(**counts))
        return out / "pairs", {"model": f"hf:{out / 'pairs' / NETWORK_FOLDER}", "weights": "none"}
    steps.begin("drawing images of two kinds of birds on land and water")
    make_synthbirds(out / "birds", SynthbirdsSettings(image_size=settings.image_size, **counts))
    return out / "birds", {}


def run_controls(out: str | Path = "demo", seed: int = 0) -> KnownAnswers:
    """Only the positive and the negative control of the demo.

    Arguments:
        out: folder for the answers; those that are there are read.
        seed: of the networks.

    Raises:
        UserError: the folder can't be written, or holds answers of another seed.
    """
    return _controls(Path(out), seed, _Steps())


def _controls(out: Path, seed: int, steps: _Steps) -> KnownAnswers:
    file = out / CONTROLS_FILE
    if is_stored(file):
        stored = KnownAnswers.read(file)
        if stored.seed != seed:
            raise UserError(f"{file} has seed {stored.seed}, not {seed}: choose another --out, or the same seed")
        steps.skip(2)
        return stored
    with locked(out):  # raises an error now if the folder can't be written
        steps.begin("positive control: a network with memory planted in known channels")
        positive = positive_control(seed)
        steps.begin("negative control: a network with a layer that was never trained")
        answers = KnownAnswers(seed=seed, positive=positive, negative=negative_control(seed))
        answers.write(file)
    return answers


_NETWORKS = {"synthbirds": "ResNet-18", "negated-pairs": "BERT"}

SECONDS = (25.0, 9.0, 6.0, 20.0, 22.0, 30.0, 3.0, 12.0)
"""How long each step takes on two cores, about."""


class _Steps:
    """Announces each step, and how long the rest will take on this machine."""

    def __init__(self) -> None:
        self.number, self.first, self.started = 0, 0, time.monotonic()

    def skip(self, n: int) -> None:
        """Leave out the next `n` steps, whose results are there."""
        self.number += n
        self.first, self.started = self.number, time.monotonic()

    def begin(self, what: str) -> None:
        done = sum(SECONDS[self.first : self.number])
        pace = (time.monotonic() - self.started) / done if done else 1.0
        left = pace * sum(SECONDS[self.number :])
        self.number += 1
        log(f"{self.number}/{len(SECONDS)} {what}; about {left:.0f} s left")
