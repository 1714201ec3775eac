"""Settings of figures and tables. This module imports no numerical library, so that help texts appear at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..settings import Settings

FigureName = Literal[
    "accuracy",
    "groups",
    "memorization",
    "accuracy_changes",
    "verdicts",
    "layers",
    "ablation",
    "images",
    "texts",
    "comparison",
    "counts",
    "all",
]

TableFormat = Literal["markdown", "latex", "csv"]

CheckFormat = Literal["markdown", "junit"]

FigureFormat = Literal["svg", "png", "pdf", "latex", "markdown", "csv"]


class FigureSettings(Settings):
    """Which part of the results a figure shows, and its file format."""

    study: str | None = Field(None, description="name of the study; the latest one if not given")
    split: str | None = Field(None, description="train, val or test; the first measured one if not given")
    edit: str | None = Field(None, description="the edit, as the report writes it; the first one if not given")
    criterion: str | None = Field(None, description="the criterion that selected the sets; all if not given")
    size: str | None = Field(None, description="size of the selected sets; all if not given")
    group: str | None = Field(None, description="name of one group; all if not given")
    map: str | None = Field(None, description="the ablation map, as the report writes it; the first one if not given")
    format: FigureFormat = Field("svg", description="svg, png or pdf: the chart; latex, markdown or csv: its table")
