"""`spurmem data`: make, prepare and check data sets."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import RenderableType
from rich.text import Text

from ..datasets.settings import (
    FOUND_COLUMNS,
    NETWORK_FOLDER,
    ColoredDigitsSettings,
    Columns,
    CubPlacesSettings,
    NegatedPairsSettings,
    SynthbirdsSettings,
)
from ..settings import MAX_COUNT
from .app import Answer
from .data_groups import groups_command
from .data_properties import properties_command

if TYPE_CHECKING:
    from ..datasets.check import Report
    from ..reporting.tables.table import Table
    from ..statistics.group_sizes import GroupTooSmall

SHOWN = 10
SHOWN_COUNTS = 5
NEAR = "images that look like an image of an earlier split"

data_app = App(name="data", help="Make, prepare and check data sets.")
make_app = App(name="make", help="Make a data set with a planted spurious correlation.")
data_app.command(make_app)
prepare_app = App(
    name="prepare", help="Prepare a published data set from your files or archives, and check that it is complete."
)
data_app.command(prepare_app)
data_app.command(groups_command, name="groups")
data_app.command(properties_command, name="properties")


@make_app.command(name="synthbirds")
def make_synthbirds_command(
    *, out: Path, settings: Annotated[SynthbirdsSettings | None, Parameter(name="*")] = None
) -> Answer:
    """Draw two kinds of birds on land or water. This needs no files, and a network trains on it in minutes on a CPU.

    Arguments:
        out: the data folder; the same command continues one that is not complete
    """
    from ..datasets.synthbirds.make import make_synthbirds

    make_synthbirds(out, settings or SynthbirdsSettings())
    return checked(out, decode=False, duplicates=False)


@make_app.command(name="colored-digits")
def make_colored_digits_command(
    *, out: Path, settings: Annotated[ColoredDigitsSettings | None, Parameter(name="*")] = None
) -> Answer:
    """Color the scanned digits of scikit-learn. The color is correlated with the digit.

    Arguments:
        out: the data folder; the same command continues one that is not complete
    """
    from ..datasets.colored_digits import make_colored_digits

    make_colored_digits(out, settings or ColoredDigitsSettings())
    return checked(out, decode=False, duplicates=False)


@make_app.command(name="negated-pairs")
def make_negated_pairs_command(
    *, out: Path, settings: Annotated[NegatedPairsSettings | None, Parameter(name="*")] = None
) -> Answer:
    """Write pairs of sentences with a planted negation, and the configuration of a small network of text.

    Arguments:
        out: the data folder; the same command continues one that is not complete
    """
    from ..datasets.negated_pairs import make_negated_pairs

    make_negated_pairs(out, settings or NegatedPairsSettings())
    return checked(out, decode=False, duplicates=False)


@make_app.command(name="waterbirds")
def make_waterbirds_command(*, out: Path, settings: Annotated[CubPlacesSettings, Parameter(name="*")]) -> Answer:
    """Paste the birds of CUB-200-2011 onto backgrounds of Places, as Waterbirds was made.

    Arguments:
        out: the data folder; the same command continues one that is not complete
    """
    from ..datasets.cub_places import make_waterbirds

    make_waterbirds(out, settings)
    return checked(out, decode=False, duplicates=False)


@data_app.command(name="check")
def check_command(
    folder: Path,
    /,
    *,
    attribute: str | None = None,
    decode: Annotated[bool, Parameter(negative="--no-decode")] = True,
    duplicates: Annotated[bool, Parameter(negative="--no-duplicates")] = True,
    min_group_size: Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_COUNT))] = 1,
    columns: Annotated[Columns | None, Parameter(name="*")] = None,
) -> Answer:
    """Count samples per split and group, and find what is wrong with images or texts, labels and splits.

    Waterbirds and CelebA are compared with their published counts. The exit status is 1 if something is wrong.

    Arguments:
        folder: the data folder
        attribute: attribute column; by default "a", or the only attribute column; several, such as a,b
        decode: decode every image completely, to find truncated ones
        duplicates: search for images or texts that occur more than once, and images that look alike in different splits
        min_group_size: attribute values, or combinations of them, with fewer training samples are merged into one
    """
    named = columns or FOUND_COLUMNS
    return checked(folder, attribute, named, decode=decode, duplicates=duplicates, min_group_size=min_group_size)


@prepare_app.command(name="waterbirds")
def prepare_waterbirds_command(source: Path | None = None, /, *, out: Path | None = None) -> Answer:
    """Unpack Waterbirds from its archive, or use your folder. Without SOURCE, Waterbirds is downloaded.

    Arguments:
        source: folder (not copied) or archive with Waterbirds; downloaded by default
        out: new folder for the unpacked files; if SOURCE is a folder, a link to it
    """
    from ..datasets.waterbirds import prepare_waterbirds

    return checked(prepare_waterbirds(source, out), decode=False, duplicates=False)


@prepare_app.command(name="celeba")
def prepare_celeba_command(source: Path | None = None, /, *, out: Path | None = None) -> Answer:
    """Unpack CelebA from its archive, or use your folder, in any of the known layouts.

    Arguments:
        source: folder (not copied) or archive with CelebA; a download needs an account, so get it yourself
        out: new folder for the unpacked files; if SOURCE is a folder, a link to it
    """
    from ..datasets.celeba import prepare_celeba

    return checked(prepare_celeba(source, out), decode=False, duplicates=False)


def checked(
    folder: Path,
    attribute: str | None = None,
    columns: Columns = FOUND_COLUMNS,
    *,
    decode: bool,
    duplicates: bool = True,
    min_group_size: int = 1,
) -> Answer:
    """Check a data folder. The exit status is 1 if something is wrong."""
    from ..datasets.check import check

    report = check(folder, attribute, decode, duplicates, min_group_size, columns)
    too_small = _groups_too_small(report)
    text: list[RenderableType] = [
        Text(f"{report.folder}: {report.name}, {report.images} {report.kind}, layout {report.layout!r}"),
        counts_table(report),
        *_findings(report),
        *_notes(report, too_small),
    ]
    if report.sound:
        options = [] if report.attribute == "a" else ["--attribute", report.attribute]
        options += [] if min_group_size == 1 else ["--min-group-size", str(min_group_size)]
        named = columns.model_dump(exclude_none=True)
        options += [part for name, column in named.items() for part in (f"--{name.replace('_', '-')}", column)]
        command = ["spurmem", "train", report.folder, *options, *_network_for(report), "--out", "runs/first"]
        text.append(Text(f"next: {shlex.join(command)}"))
    facts = {**report.facts(), "too_small": [asdict(group) for group in too_small]}
    return Answer(text, facts, exit_status=0 if report.sound else 1)


def _network_for(report: Report) -> list[str]:
    """The options of `train` that choose a network for these data."""
    if report.kind == "images":
        return ["--model", "resnet18"]
    own = Path(report.folder) / NETWORK_FOLDER
    return ["--model", f"hf:{own}", "--weights", "none"] if own.is_dir() else ["--model", "hf:PATH"]


def counts_table(report: Report) -> Table:
    """Samples per group and split, with each group's lift and role."""

    import pandas as pd

    from ..reporting.tables.dataset_tables import group_counts_table

    def role(group: str) -> str:
        return "minority" if group in report.minority else "majority" if group in report.majority else ""

    counts = pd.DataFrame(
        {"group": report.groups, **report.counts, "lift": report.lift, "role": [role(group) for group in report.groups]}
    )
    return group_counts_table(counts, "Samples of each group in each split")


def _findings(report: Report) -> list[Text]:
    lines = _file_findings(report) if report.kind == "images" else []
    if report.searched:
        leaks = [" = ".join(f"{split}: {', '.join(paths)}" for split, paths in leak.items()) for leak in report.leaks]
        lines.append(_finding(f"{report.kind} in more than one split", leaks))
        contradictions = [f"{' = '.join(c.paths)}: {' and '.join(c.groups)}" for c in report.contradictions]
        lines.append(_finding(f"{report.kind} with contradicting labels or attributes", contradictions))
    if report.compared:
        differences = [f"{d.group} in {d.split}: {d.found}, not {d.known}" for d in report.differences]
        lines.append(_finding(f"counts that differ from the published ones of {report.name}", differences))
    if report.split_seed is not None:
        lines.append(Text(f"the table has no split: each group is split 70/10/20 with split seed {report.split_seed}"))
    return lines


def _file_findings(report: Report) -> list[Text]:
    broken = [f"{path} ({reason})" for path, reason in report.broken.items()]
    lines = [
        _finding("images missing", list(report.missing)),
        _finding("paths that lead outside the folder", list(report.outside)),
    ]
    if report.decoded or broken:
        lines.append(_finding("images that can't be read completely", broken))
    return lines


def _groups_too_small(report: Report) -> list[GroupTooSmall]:
    from ..statistics.group_sizes import groups_too_small

    def total(splits: Iterable[str]) -> list[int]:
        return [sum(report.counts[split][group] for split in splits) for group in range(len(report.groups))]

    unseen = [split for split in report.counts if split != "train"]
    return groups_too_small(
        report.groups,
        n_classes=len(report.classes),
        train=total({"train"} & report.counts.keys()),
        unseen=total(unseen),
        minority=report.minority,
        majority=report.majority,
    )


def _notes(report: Report, too_small: list[GroupTooSmall]) -> list[Text]:
    """What may be right, but should be known."""
    pairs = [f"{n.split}: {n.path} ~ {n.match_split}: {n.match} ({n.distance} bits)" for n in report.near_duplicates]
    rare = [f"{rare.kind} {rare.value!r} in {rare.split}: {rare.count}" for rare in report.rare]
    lines = [
        _note("rows that repeat exactly", [f"{path}: {n} times" for path, n in report.repeated.items()]),
        _note(f"copies of {report.kind} within a split", [" = ".join(paths) for paths in report.copies]),
        _note(NEAR, pairs)
        if pairs or report.kind == "texts" or not (report.searched and report.decoded)
        else Text(f"{NEAR}: none"),
        _note("classes and attribute values that occur once or never in a split", rare),
        _note("groups too small for a verdict", [str(group) for group in too_small]),
        _note("unusual images", [f"{path}: {what}" for path, what in report.unusual.items()]),
        _note("images with an EXIF rotation, which isn't applied", list(report.rotated)),
    ]
    if len(report.modes) > 1:
        lines.append(Text(f"modes: {_counts_shown(report.modes)}"))
    if len(report.sizes) > 1:
        lines.append(Text(f"sizes: {_counts_shown(report.sizes)}"))
    return [line for line in lines if line]


def _counts_shown(counts: dict[str, int]) -> str:
    most = [f"{n} of {value}" for value, n in list(counts.items())[:SHOWN_COUNTS]]
    more = [f"and {len(counts) - SHOWN_COUNTS} more"] if len(counts) > SHOWN_COUNTS else []
    return ", ".join([*most, *more])


def _finding(what: str, items: list[str]) -> Text:
    return _listed(what, items, "red") if items else Text(f"{what}: none")


def _note(what: str, items: list[str]) -> Text:
    return _listed(f"note: {what}", items, "yellow") if items else Text()


def _listed(what: str, items: list[str], style: str) -> Text:
    more = [f"  and {len(items) - SHOWN} more (--json lists all)"] if len(items) > SHOWN else []
    return Text("\n".join([f"{what}: {len(items)}", *(f"  {item}" for item in items[:SHOWN]), *more]), style=style)
