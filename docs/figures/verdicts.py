"""Draw the figures of docs/verdicts.md: `python docs/figures/verdicts.py`. It prints the page's numbers.

It trains a small network on small images with a spurious correlation, and studies it in memory. It takes some minutes.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import vl_convert
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

import spurious_memorization as sm
from spurious_memorization.calibration.striped_images import striped_images
from spurious_memorization.datasets.samples import Dataset
from spurious_memorization.intervals import wilson_interval
from spurious_memorization.reporting.figures.colors import BLUE, CONFIG, LINE, MUTED, ORANGE, printed
from spurious_memorization.reporting.tables.findings import findings, p_influential
from spurious_memorization.statistics.damage import FACTOR, matching
from spurious_memorization.statistics.selectivity import matched_sets
from spurious_memorization.studies.question_tests import effects_beside_random
from spurious_memorization.studies.selected_sets import SelectedSet
from spurious_memorization.studies.study import Study

IMAGES = Path(__file__).parent.parent / "images"
SEED = 0
GROUP = "upright with cold"
SETTINGS = sm.StudySettings(
    criterion=("gradient", "weight_norm"), group=("lying with warm",), size=("3", "10"), controls=199
)


def trained(samples: sm.Samples, seed: int) -> nn.Module:
    """A ResNet of four blocks with narrow layers, in evaluation mode. It memorizes most of its minority groups."""
    torch.manual_seed(seed)
    block: Any = BasicBlock
    model = ResNet(block, (1, 1, 1, 1), num_classes=2, stem_width=32, channels=(32, 48, 64, 96)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    for epoch in range(10):
        for batch in samples.shuffled(seed, epoch).batches(60):
            loss = F.cross_entropy(model(batch.inputs), batch.y)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return model.eval()


def main() -> None:
    """Train, study, draw."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data = striped_images(SEED)
    study = sm.study_in_memory(trained(data.train, SEED), data, SETTINGS)
    effects = study.effects().query("split == 'train' and group_name == @GROUP").copy()
    effects["p"] = p_influential(effects)
    print("\n".join(findings(study.effects(), study.groups())))
    print(study.groups().drop(columns=["group", "minority"]).round(3).to_string(index=False))
    columns = ["criterion", "size", "tested_accuracy_change", "control_low", "n_controls", "p", "difference"]
    columns += ["p_selective", "n_damage_matched", "matched_drop", "p_localized", "contrast", "matched_contrast"]
    print(effects[[*columns, "p_memorizing", "verdict"]].round(3).T.to_string(header=False))
    by_size = {(row.criterion, row.size): row.selected_set for row in effects.itertuples()}
    sets = {one.number: one for one in study.selected_sets()}
    few, more, many = (sets[by_size[key]] for key in (("gradient", "3"), ("gradient", "10"), ("weight_norm", "10")))
    _save("memorized", memorized(study))
    _save("influential", influential(study, effects, {few.number: few, many.number: many}))
    for one in (few, many):
        selective(study, one, data)  # prints its numbers
    _save("selective", selective(study, more, data))
    _save("memorizing", memorizing(study, few, data))


def memorized(study: Study) -> alt.TopLevelMixin:
    """Question 0: accuracy in training and on unseen samples."""
    rows = []
    for of in study.groups().to_dict(orient="records"):
        for where, name in (("in training", "train"), ("on unseen samples", "unseen")):
            n, share = of[f"n_{name}"], of[f"{name}_accuracy"]
            low, high = wilson_interval(share * n, n)
            rows.append({"group": of["group_name"], "where": where, "accuracy": share, "low": low, "high": high})
    base = _chart(rows).encode(y=alt.Y("group:N", title=None), yOffset="where:N", color=_color("where", BLUE, ORANGE))
    interval = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title="accuracy, with its 95 % interval", axis=alt.Axis(format="%")), x2="high:Q"
    )
    return (interval + base.mark_point(filled=True, size=70, opacity=1).encode(x="accuracy:Q")).properties(
        width=420, height=200
    )


def influential(study: Study, effects: pd.DataFrame, sets: dict[int, SelectedSet]) -> alt.TopLevelMixin:
    """Question 1: the drop among those of null sets, and the drop against the norm."""
    changes = study.control_changes()
    group = int(effects["group"].iloc[0])
    panels = []
    for number, one in sets.items():
        own = effects.set_index("selected_set").loc[number]
        here = changes[(changes["selected_set"] == number) & (changes["group"] == group)]
        here = here[here["split"] == "train"].set_index("control")
        norms = one.null_sets.log_norms()
        rows = pd.DataFrame({"drop": -here["accuracy_change"].astype(float), "norm": norms.reindex(here.index)})
        chosen = pd.DataFrame([{"drop": -own["tested_accuracy_change"], "norm": one.log_norm}])
        every = pd.concat([rows, chosen])
        slope, start = np.polyfit(every["norm"], every["drop"], 1)
        ends = np.array([every["norm"].min(), every["norm"].max()])
        title = f"{own['criterion']}, size {own['size']}: p = {own['p']:.3f}"
        drop = alt.Axis(format="%")
        bars = (
            alt.Chart(rows)
            .mark_bar(color=MUTED)
            .encode(
                x=alt.X("drop:Q", bin=alt.Bin(step=0.05), title="drop of the accuracy", axis=drop),
                y=alt.Y("count()", title="null sets"),
            )
        )
        mark = alt.Chart(chosen).mark_rule(color=ORANGE, strokeWidth=3).encode(x="drop:Q")
        points = alt.Chart(rows).mark_circle(color=MUTED, size=18)
        line = alt.Chart(pd.DataFrame({"norm": ends, "drop": start + slope * ends})).mark_line(color=BLUE)
        dot = alt.Chart(chosen).mark_point(color=ORANGE, filled=True, shape="diamond", size=130, opacity=1)
        place = {
            "x": alt.X("norm:Q", title="logarithm of the norm", scale=alt.Scale(zero=False), axis=_FEW_TICKS),
            "y": alt.Y("drop:Q", title="drop of the accuracy", axis=drop),
        }
        left = (bars + mark).properties(width=270, height=170, title=title)
        right = (points.encode(**place) + line.encode(**place) + dot.encode(**place)).properties(width=270, height=170)
        panels.append(left | right)
    return alt.vconcat(*panels)


def selective(study: Study, one: SelectedSet, data: Dataset) -> alt.TopLevelMixin:
    """Question 2: the drop against the margin before the edit, for the minority and the majority of its label."""
    group = data.groups.names.index(GROUP)
    label = data.groups.label_of(group)
    majority = [m for m in data.majority if data.groups.label_of(m) == label]
    variants = one.tested[["variant", "fold"]]
    rows = study.outcomes("train", variants=variants["variant"].tolist())
    before = rows[rows["variant"] == -1].drop_duplicates("sample").set_index("sample")["margin"]
    after = rows[rows["variant"] >= 0].merge(variants, on="variant").set_index("sample")
    frame = pd.DataFrame({"before": before.reindex(after.index), "after": after["margin"], "half": after["fold"]})
    frame = frame.astype({"before": float, "after": float})
    of = data.g[frame.index.to_numpy()]
    frame = frame[(of == group) | np.isin(of, majority)]
    is_minority = data.g[frame.index.to_numpy()] == group
    sets = matched_sets(frame["before"].to_numpy(), is_minority, frame["half"].to_numpy())
    beside = np.unique(sets[:, 1:][sets[:, 1:] >= 0])
    kinds = np.array(["majority, not compared", "minority"])[is_minority.astype(int)].astype(object)
    kinds[beside] = "majority, nearest in margin"
    frame["kind"] = kinds
    frame["drop"] = frame["before"] - frame["after"]
    frame["lost"] = (frame["before"] > 0).astype(float) - (frame["after"] > 0)
    loss = [
        ("minority", is_minority),
        ("whole majority", ~is_minority),
        ("nearest", kinds == "majority, nearest in margin"),
    ]
    for name, chosen in loss:
        lost = frame.loc[chosen, "lost"].mean()
        print(f"{one.about['criterion']} {one.about['size']}, {name}: n={chosen.sum()}, loses {lost:.3f}")
    order = ["minority", "majority, nearest in margin", "majority, not compared"]
    color = alt.Color(
        "kind:N", title=None, sort=order, scale=alt.Scale(domain=order, range=[ORANGE, BLUE, MUTED]), legend=_LEGEND
    )
    points = (
        _chart(frame)
        .mark_point(filled=True, size=28, opacity=0.8)
        .encode(
            x=alt.X("before:Q", title="margin before the edit", scale=alt.Scale(zero=False), axis=_FEW_TICKS),
            y=alt.Y("drop:Q", title="drop of the margin"),
            color=color,
        )
    )
    flips = pd.DataFrame({name: [frame["before"].min(), frame["before"].max()] for name in ("before", "drop")})
    line = alt.Chart(flips).mark_line(color=MUTED, strokeDash=[4, 4]).encode(x="before:Q", y="drop:Q")
    return (line + points).properties(width=520, height=280)


def memorizing(study: Study, one: SelectedSet, data: Dataset) -> alt.TopLevelMixin:
    """Question 3: the contrast against the damage, for random sets of many sizes and the selected set."""
    group = data.groups.names.index(GROUP)
    selected, others = effects_beside_random(one, data, group, "train")
    damage = float(selected.damage[0])
    chosen = matching(damage, others.damage)
    kind = np.where(chosen, "damage-matched sets", "other random sets")
    rows = pd.DataFrame({"damage": others.damage, "contrast": others.contrast, "kind": kind})
    print(f"{len(rows)} random sets, {(rows['contrast'] > 0).mean():.3f} of them with a contrast above 0")
    rows.loc[len(rows)] = [damage, float(selected.contrast[0]), "selected set"]
    band = alt.Chart(pd.DataFrame([{"from": damage / FACTOR, "to": damage * FACTOR}])).mark_rect(
        color=LINE, opacity=0.5
    )
    order = ["selected set", "damage-matched sets", "other random sets"]
    color = alt.Color(
        "kind:N", title=None, sort=order, scale=alt.Scale(domain=order, range=[ORANGE, BLUE, MUTED]), legend=_LEGEND
    )
    points = (
        _chart(rows)
        .mark_point(filled=True, opacity=0.9)
        .encode(
            x=alt.X("damage:Q", title="damage: margin change of majority and unseen samples", axis=_FEW_TICKS),
            y=alt.Y("contrast:Q", title="contrast: training - unseen"),
            color=color,
            shape=alt.Shape("kind:N", sort=order, scale=alt.Scale(domain=order, range=["diamond", "circle", "circle"])),
            size=alt.condition(alt.datum.kind == "selected set", alt.value(150), alt.value(28)),
        )
    )
    return (band.encode(x="from:Q", x2="to:Q") + points).properties(width=520, height=280)


_FEW_TICKS = alt.Axis(tickCount=6)
_LEGEND = alt.Legend(orient="top", symbolOpacity=1)


def _chart(rows: pd.DataFrame | list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(pd.DataFrame(rows))


def _color(name: str, *colors: str) -> alt.Color:
    return alt.Color(f"{name}:N", title=None, scale=alt.Scale(range=list(colors)), legend=_LEGEND)


def _save(name: str, chart: alt.TopLevelMixin) -> None:
    spec = printed({**chart.to_dict(), "config": CONFIG, "background": "white"})
    file = IMAGES / f"verdicts-{name}.svg"
    file.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
    print(f"{file.name}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
