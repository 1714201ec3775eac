"""A study in memory and a study of a run are one pipeline: all frames are equal, for every criterion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from torch import nn

import spurious_memorization as sm

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly", "ignore:only .* null sets")

CASES = {
    "weight_norm": {"criterion": ("weight_norm",)},
    "gradient": {"criterion": ("gradient",)},
    "taylor": {"criterion": ("taylor",), "per_group": 3},
    "ablation": {"criterion": ("ablation",)},
    "ablation, screened": {"criterion": ("ablation",), "screen": 9},
    "ablation, screened, bf16": {"criterion": ("ablation",), "screen": 9, "precision": "bf16"},
    "random": {"criterion": ("random",)},
    "a user's own": {"criterion": ("tiny_criteria:drawn_channels",)},
    "several at once": {"criterion": ("weight_norm", "gradient", "ablation"), "edit": ("zero", "mean")},
    "without halves": {"criterion": ("gradient", "ablation"), "cross_fit": False},
    "given units": {"units": ("conv1:2,conv2:3",), "edit": ("zero", "random_noise:std=0.5"), "repeats": 2},
    "rewind": {"criterion": ("gradient",), "edit": ("rewind:epochs=2",)},
    "pseudo-minority": {"criterion": ("gradient",), "pseudo_minority": 3},
    "single weights": {"criterion": ("weight_norm",), "unit": "weight", "size": ("5%",), "dropout_p": 0.5},
    "the paper's preset": {"criterion": ("weight_norm", "gradient"), "preset": "paper"},
}


QUICK = ("given units",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_every_frame_is_that_of_a_run(case: str, trained: sm.Run, tmp_path: Path) -> None:
    run = tiny.copied(trained, tmp_path / "run")
    settings = sm.StudySettings(**{"size": ("1..2",), "controls": 3, **CASES[case]})
    stored = sm.study(run, settings, name="stored")
    found = sm.study_in_memory(run.network(3), run.read_data(), settings, older=run.state(1))
    for name in ("effects", "results", "variants"):
        expected, frame = getattr(stored, name)(), getattr(found, name)()
        if name == "variants":
            assert set(expected.pop("epoch")) == {3}
            assert set(frame.pop("epoch")) == {0}
        pd.testing.assert_frame_equal(frame, expected, obj=f"{case}: {name}")
    rankings_agree = stored.agreement()
    if rankings_agree is None:
        assert found.agreement() is None
    else:
        pd.testing.assert_frame_equal(found.agreement(), rankings_agree)
    for split in settings.split:
        pd.testing.assert_frame_equal(found.outcomes(split), stored.outcomes(split))
        everyone = stored.variants()["variant"].tolist()
        pd.testing.assert_frame_equal(
            found.outcomes(split, variants=everyone), stored.outcomes(split, variants=everyone)
        )
    pd.testing.assert_frame_equal(found.control_changes(), stored.control_changes())
    assert [one.number for one in found.selected_sets()] == [one.number for one in stored.selected_sets()]


@pytest.mark.slow
def test_rankings_of_other_runs_use_all_settings(trained: sm.Run, tmp_path: Path) -> None:
    """The same network as another run agrees perfectly, also where its ablation map is screened."""
    run, other = (tiny.copied(trained, tmp_path / name) for name in ("run", "other"))
    settings = sm.StudySettings(
        criterion=("ablation",), screen=12, precision="bf16", size=("1",), controls=0, agreement_with=(str(other.path),)
    )
    agreement = sm.study(run, settings, name="s").agreement()
    assert agreement is not None
    pairs = agreement[agreement["other"].str.endswith(f" in {other.path}")]
    assert len(pairs) == 2
    assert (pairs["shared"] == pairs["k"]).all()
    assert pairs["rank_correlation"].to_numpy() == pytest.approx(1)
    assert not (other.path / "rankings").exists()


@pytest.mark.slow
def test_what_needs_a_run_is_an_error(trained: sm.Run) -> None:
    settings = sm.StudySettings(criterion=("weight_norm",), size=("1",), controls=0, other_epochs=("0",))
    with pytest.raises(sm.UserError, match="other_epochs needs the checkpoints of a run"):
        sm.study_in_memory(trained.network(3), trained.read_data(), settings)
    with pytest.raises(sm.UserError, match="a study in memory has no folder"):
        _ = sm.study_in_memory(
            trained.network(3), trained.read_data(), settings.model_copy(update={"other_epochs": ()})
        ).path


@pytest.mark.slow
def test_means_over_training_samples_or_over_unseen_ones() -> None:
    torch.manual_seed(0)
    x, y, a = torch.randn(60, 3, 6, 6), np.arange(60) % 2, np.arange(60) // 2 % 3 // 2
    split = np.array(["train", "val", "test"])[np.arange(60) % 5 // 2]
    x[split == "train", 1] += 1
    data = sm.from_tensors(x, y, a, split)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    settings = sm.StudySettings(units=("0:3",), controls=0, edit=("mean", "mean:over=unseen"))
    found = sm.study_in_memory(model, data, settings)
    assert found.variants()["parameters"].tolist() == ["{}", '{"over": "unseen"}']
    after = found.outcomes("test").set_index("variant")["margin"].astype(float)
    for variant, samples in enumerate((x[split == "train"], x[split != "train"])):
        means = {"0": model[0](samples).mean((0, 2, 3)).detach()}
        expected = sm.evaluate(model, sm.edits.mean(sm.parse_units(model, "0:3"), means), data.test)
        np.testing.assert_allclose(after.loc[variant], expected.after.margin[0].astype(float), atol=2e-3)
    without = sm.from_tensors(x, y, a, "train")
    with pytest.raises(sm.UserError, match="edit mean:over=unseen needs val or test samples: the data set has none"):
        sm.study_in_memory(model, without, settings.model_copy(update={"split": ("train",)}))
