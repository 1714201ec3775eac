"""The columns of the frames that a study stores, by which a broken file is found when it is read."""

from __future__ import annotations

from ..stored_files import Columns

VARIANTS: Columns = {
    "variant": "count",
    "family": "text",
    "selected_set": "whole",
    "pool": "whole",
    "criterion": "text or none",
    "group": "text or none",
    "selected_on": "text or none",
    "size": "text or none",
    "kind": "text",
    "parameters": "text",
    "unit": "text",
    "n_units": "count",
    "units": "text or none",
    "rule": "text or none",
    "digest": "text",
    "seed": "whole",
    "epoch": "count",
    "fold": "whole",
    "repeat": "whole",
    "control": "whole",
    "matched_to": "text or none",
    "log_norm": "number",
    "precision": "text",
}

_CORRECT: Columns = {"n": "count", "correct_before": "count", "correct_after": "count"}

RESULTS: Columns = {
    "variant": "count",
    "split": "text",
    "subset": "text",
    "half": "whole",
    "group": "count",
    **_CORRECT,
    "became_wrong": "count",
    "became_right": "count",
    **dict.fromkeys(("loss_before", "loss_after", "margin_before", "margin_after", "margin_change_squares"), "number"),
}

EFFECTS: Columns = {
    "selected_set": "count",
    "criterion": "text",
    "traced_on": "text or none",
    "size": "text",
    "kind": "text",
    "parameters": "text",
    "unit": "text",
    "n_units": "count",
    "units": "text or none",
    "split": "text",
    "group": "count",
    "group_name": "text",
    "minority": "flag",
    "n": "count",
    **dict.fromkeys(("accuracy_before", "accuracy_after"), "share"),
    **dict.fromkeys(("accuracy_change", "low", "high", "margin_change", "tested_accuracy_change"), "number"),
    **dict.fromkeys(("control_low", "control_median", "control_high"), "number"),
    "n_controls": "count",
    "n_controls_as_large": "count",
    "controls_on": "text or none",
    **dict.fromkeys(("p", "p_adjusted", "p_beyond_norm", "p_selective", "p_selective_margin"), "share"),
    **dict.fromkeys(("p_localized", "p_memorizing", "p_contrast"), "share"),
    "n_damage_matched": "count",
    **dict.fromkeys(("difference", "majority_change", "damage", "damage_ratio", "matched_drop"), "number"),
    **dict.fromkeys(("contrast", "matched_contrast", "norm_ratio"), "number"),
    **dict.fromkeys(("drawn_from", "matched_from"), "text or none"),
    **dict.fromkeys(("influential", "selective", "localized", "memorizing"), "flag or none"),
    "verdict": "text",
    "reason": "text or none",
}

GROUPS: Columns = {
    "group": "count",
    "group_name": "text",
    "minority": "flag",
    "n_train": "count",
    "n_unseen": "count",
    **dict.fromkeys(("train_accuracy", "unseen_accuracy"), "share"),
    **dict.fromkeys(("difference", "low", "high"), "number"),
    "memorized": "flag or none",
}

OTHER_EPOCHS: Columns = {
    "selected_set": "count",
    "epoch": "count",
    "split": "text",
    "group": "count",
    "group_name": "text",
    "accuracy_change": "number",
}

GROUPINGS: Columns = {
    "grouping": "text",
    "group": "count",
    "group_name": "text",
    "n_train": "count",
    "memorized": "flag or none",
    "verdict": "text",
    "units": "text or none",
}

STRONGEST: Columns = {
    "selected_set": "count",
    "group": "count",
    "group_name": "text",
    "control": "whole",
    "units": "text",
    "accuracy_change": "number",
}

AGREEMENT: Columns = {
    "one": "text",
    "other": "text",
    "k": "count",
    "shared": "count",
    **dict.fromkeys(("expected", "p", "rank_correlation"), "number"),
}

OUTCOMES: Columns = {
    "variant": "whole",
    "sample": "count",
    "predicted": "count",
    "loss": "number",
    "margin": "number",
}

ABLATION_MAP: Columns = {
    "tensor": "text",
    "index": "count",
    "group": "text",
    **_CORRECT,
    **dict.fromkeys(("margin_before", "margin_after", "accuracy_change", "margin_change"), "number"),
}

_FRAMES = {
    "variants": VARIANTS,
    "results": RESULTS,
    "effects": EFFECTS,
    "groups": GROUPS,
    "groupings": GROUPINGS,
    "strongest": STRONGEST,
    "other_epochs": OTHER_EPOCHS,
    "agreement": AGREEMENT,
    "map": ABLATION_MAP,
    "map_of_half_0": ABLATION_MAP,
    "map_of_half_1": ABLATION_MAP,
}

_KEYS = {
    "variants": ("variant",),
    "results": ("variant", "split", "subset", "half", "group"),
    "effects": ("selected_set", "split", "group"),
    "groups": ("group",),
    "groupings": ("grouping", "group"),
    "strongest": ("selected_set", "group", "control"),
    "other_epochs": ("selected_set", "epoch", "split", "group"),
    "agreement": ("one", "other", "k"),
    "map": ("tensor", "index", "group"),
    "map_of_half_0": ("tensor", "index", "group"),
    "map_of_half_1": ("tensor", "index", "group"),
}
"""Columns whose values name a row. Outcomes have many rows, so that a look at each would take too long."""


def columns_of(name: str) -> Columns:
    """The columns of a frame, by its name in the store."""
    folder, _, own = name.rpartition("/")
    return OUTCOMES if folder.endswith("outcomes") else _FRAMES[own]


def key_of(name: str) -> tuple[str, ...]:
    """The columns whose values name a row of a frame; none for outcomes."""
    return _KEYS.get(name.rpartition("/")[2], ())


def may_be_empty(name: str) -> bool:
    """Whether a frame of this name can have no rows."""
    return name in ("agreement", "other_epochs", "groups", "strongest")
