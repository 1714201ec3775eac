"""`spurmem data`: make, prepare and check data sets."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import pandas as pd
from cyclopts import App, Parameter
from rich.console import RenderableType
from rich.text import Text

from ..datasets.celeba import prepare_celeba
from ..datasets.check import Report, check
from ..datasets.colored_digits import make_colored_digits
from ..datasets.cub_places import make_waterbirds
from ..datasets.settings import ColoredDigitsSettings, CubPlacesSettings, SynthbirdsSettings
from ..datasets.synthbirds.make import make_synthbirds
from ..datasets.waterbirds import prepare_waterbirds
from ..reporting.tables.dataset_tables import group_counts_table
from ..reporting.tables.table import Table
from .app import Answer

SHOWN = 10

data_app = App(name="data")
make_app = App(name="make", help="Make a data set with a planted spurious correlation.")
data_app.command(make_app)
prepare_app = App(name="prepare", help="Take the files or archives that you have, and see that they are whole.")
data_app.command(prepare_app)


@make_app.command(name="synthbirds")
def make_synthbirds_command(
    *, out: Path, settings: Annotated[SynthbirdsSettings | None, Parameter(name="*")] = None
) -> Answer:
    """Draw two kinds of birds on land or water: needs no files, and trains in minutes on a CPU.

    Arguments:
        out: the data folder; one that was begun with the same settings is continued
    """
    make_synthbirds(out, settings or SynthbirdsSettings())
    return made(out)


@make_app.command(name="colored-digits")
def make_colored_digits_command(
    *, out: Path, settings: Annotated[ColoredDigitsSettings | None, Parameter(name="*")] = None
) -> Answer:
    """Color scikit-learn's scanned digits.

    Arguments:
        out: the data folder; one that was begun with the same settings is continued
    """
    make_colored_digits(out, settings or ColoredDigitsSettings())
    return made(out)


@make_app.command(name="waterbirds")
def make_waterbirds_command(*, out: Path, settings: Annotated[CubPlacesSettings, Parameter(name="*")]) -> Answer:
    """Paste the birds of CUB-200-2011 onto backgrounds of Places, as Waterbirds was made.

    Arguments:
        out: the data folder; one that was begun with the same settings is continued
    """
    make_waterbirds(out, settings)
    return made(out)


@data_app.command(name="check")
def check_command(
    folder: Path,
    /,
    *,
    attribute: str | None = None,
    decode: Annotated[bool, Parameter(negative="--no-decode")] = True,
) -> Answer:
    """Count samples per split and group; find missing and broken images, and copies between splits.

    Waterbirds and CelebA are compared with their known counts. Exits with status 1 if something is wrong.

    Arguments:
        folder: the data folder
        attribute: attribute column; "a", or the only one there is, if not given
        decode: decode every image whole, which finds truncated ones
    """
    return answer(check(folder, attribute, decode))


@prepare_app.command(name="waterbirds")
def prepare_waterbirds_command(source: Path | None = None, /, *, out: Path | None = None) -> Answer:
    """Unpack Waterbirds from its archive, or take the folder that you have; without SOURCE, fetch it.

    Arguments:
        source: folder (used where it is) or archive that holds Waterbirds; fetched if not given
        out: new folder to unpack into; for a folder as SOURCE, a link to it is made here
    """
    return answer(check(prepare_waterbirds(source, out), decode=False, duplicates=False))


@prepare_app.command(name="celeba")
def prepare_celeba_command(source: Path | None = None, /, *, out: Path | None = None) -> Answer:
    """Unpack CelebA from its archive, or take the folder that you have, in any of its layouts.

    Arguments:
        source: folder (used where it is) or archive that holds CelebA; it can't be fetched without an account
        out: new folder to unpack into; for a folder as SOURCE, a link to it is made here
    """
    return answer(check(prepare_celeba(source, out), decode=False, duplicates=False))


def made(out: Path) -> Answer:
    """What was made: its counts, and what to do next."""
    return answer(check(out, decode=False, duplicates=False))


def answer(report: Report) -> Answer:
    """What a check found, as tables and lines; exit status 1 if something is wrong."""
    text: list[RenderableType] = [
        Text(f"{report.folder}: {report.name}, {report.images} images, layout {report.layout!r}"),
        counts_table(report),
        *_findings(report),
    ]
    if report.sound:
        options = [] if report.attribute == "a" else ["--attribute", report.attribute]
        command = ["spurmem", "train", report.folder, *options, "--model", "resnet18", "--out", "runs/first"]
        text.append(Text(f"next: {shlex.join(command)}"))
    return Answer(text, report.facts(), exit_status=0 if report.sound else 1)


def counts_table(report: Report) -> Table:
    """Samples per group and split, with each group's lift and role."""

    def role(group: str) -> str:
        return "minority" if group in report.minority else "majority" if group in report.majority else ""

    counts = pd.DataFrame(
        {"group": report.groups, **report.counts, "lift": report.lift, "role": [role(group) for group in report.groups]}
    )
    return group_counts_table(counts, "Samples of each group in each split")


def _findings(report: Report) -> list[Text]:
    broken = [f"{path} ({reason})" for path, reason in report.broken.items()]
    lines = [
        _finding("images missing", list(report.missing)),
        _finding("paths that lead outside the folder", list(report.outside)),
    ]
    if report.decoded or broken:
        lines.append(_finding("images that can't be read whole", broken))
    if report.searched:
        leaks = [" = ".join(f"{split}: {', '.join(paths)}" for split, paths in leak.items()) for leak in report.leaks]
        lines.append(_finding("images in more than one split", leaks))
    if report.compared:
        differences = [f"{d.group} in {d.split}: {d.found}, not {d.known}" for d in report.differences]
        lines.append(_finding(f"counts that differ from the known ones of {report.name}", differences))
    if report.split_seed is not None:
        lines.append(Text(f"the table has no split: made 70/10/20 within each group, split seed {report.split_seed}"))
    return lines


def _finding(what: str, items: list[str]) -> Text:
    if not items:
        return Text(f"{what}: none")
    more = [f"  and {len(items) - SHOWN} more (--json lists all)"] if len(items) > SHOWN else []
    return Text("\n".join([f"{what}: {len(items)}", *(f"  {item}" for item in items[:SHOWN]), *more]), style="red")
