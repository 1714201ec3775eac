"""How data sets, runs, rankings and studies show themselves in a notebook: small tables, all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from ..criteria.scores import Scores
from ..datasets.samples import Dataset
from ..runs.run import Run
from ..statistics.intervals import wilson_interval
from ..studies.study import Study, studies_of
from .tables import edit_text, findings, selected_by


def dataset_html(data: Dataset) -> str:
    """Samples per group and split, with each group's lift and role."""
    counts = data.counts()
    shown = counts.assign(lift=[f"{lift:.2f}" for lift in counts["lift"]])
    return _shown(f"Data set {data.name}: {len(data)} samples", shown)


def run_html(run: Run) -> str:
    """Accuracy of every group in the last epoch that was measured, and what else the run holds."""
    record, history = run.record, run.history()
    epochs, studies = run.epochs(), [study.path.name for study in studies_of(run)]
    about = [
        f"{record.network.model}, origin {record.origin}, {len(epochs)} epochs, last {epochs[-1] if epochs else '-'}",
        f"studies: {', '.join(studies) or 'none yet'}",
    ]
    if history.empty:
        return _shown(f"Run {run.path}", pd.DataFrame(), [*about, "nothing was measured yet"])
    rows = history[(history["epoch"] == history["epoch"].max()) & (history["n"] > 0)]
    cells = {(row.split, row.group): _accuracy(int(row.correct), int(row.n)) for row in rows.itertuples()}
    splits = [split for split in ("train", "val", "test") if (rows["split"] == split).any()]
    names = record.data.groups.names
    frame = pd.DataFrame({"group": [f"{name} *" if name in record.data.minority else name for name in names]})
    for split in splits:
        frame[split] = [cells.get((split, group), "-") for group in range(len(names))]
    legend = f"accuracy after epoch {history['epoch'].max()}, with 95 % intervals; * minority group"
    return _shown(f"Run {run.path}", frame, [*about, legend])


def scores_html(scores: Scores) -> str:
    """The first units of the ranking."""
    frame = scores.first()
    shown = frame.assign(score=[f"{score:.4g}" for score in frame["score"]])
    return _shown(f"Ranking: first {len(frame)} of {scores.n} {scores.kind}s", shown)


def study_html(study: Study) -> str:
    """What was found, in sentences, and the accuracy change and verdict of each selected set on each minority group."""
    if not study.is_complete:
        return _shown(f"Study {study.path.name}", pd.DataFrame(), ["not finished: the same command continues it"])
    effects = study.effects()
    rows = effects[effects["minority"]] if effects["minority"].any() else effects
    frame = pd.DataFrame(
        {
            "selected by": [selected_by(row) for row in rows.to_dict(orient="records")],
            "edit": [edit_text(row) for row in rows.to_dict(orient="records")],
            "size": rows["size"].astype(str).to_numpy(),
            "split": rows["split"].to_numpy(),
            "group": rows["group_name"].to_numpy(),
            "accuracy change, points": [f"{100 * value:+.1f}" for value in rows["accuracy_change"]],
            "controls": [
                f"{100 * low:+.1f} to {100 * high:+.1f}" if n else "-"
                for low, high, n in zip(rows["control_low"], rows["control_high"], rows["n_controls"], strict=True)
            ],
            "adjusted p": ["-" if pd.isna(p) else f"{p:.3f}" for p in rows["p_adjusted"]],
            "verdict": rows["verdict"].to_numpy(),
        }
    )
    return _shown(f"Study {study.path.name}", frame, findings(effects))


def _shown(title: str, frame: pd.DataFrame, lines: Sequence[str] = ()) -> str:
    """A heading, lines and a table; none of their text is taken for markup."""
    parts = [f"<p><strong>{escape(title)}</strong></p>", *(f"<p>{escape(line)}</p>" for line in lines)]
    if len(frame.columns):
        parts.append(frame.to_html(index=False, escape=True, border=0))
    return f"<div>{''.join(parts)}</div>"


def _accuracy(correct: int, n: int) -> str:
    low, high = wilson_interval(correct, n)
    return f"{100 * correct / n:.1f} % ({100 * float(low):.0f}-{100 * float(high):.0f}, n={n})"
