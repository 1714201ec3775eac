"""The paper's grids: every settings file is valid and holds what the authors' scripts list."""

from __future__ import annotations

from itertools import product

import pytest

import spurious_memorization as sm
from spurious_memorization.paper.grids import Grid, grid_names, read_grid, read_scale
from spurious_memorization.studies.settings import parse_sizes

DATASETS = ("waterbirds", "celeba")
NETWORKS = ("resnet50", "deit-tiny", "deit-small", "deit-base", "deit-large")
STUDIES = ("largest-channel", "most-activated-channel", "threshold", "fine-tuning")

STDS = (0.02, 0.01, 0.005)
SMALL, LARGE = (1e-5, 2e-5, 3e-5), (0.05, 0.075, 0.1, 0.15, 0.2, 0.4, 0.5, 0.6)


def noise(kind: str, stds: tuple[float, ...]) -> set[str]:
    return {f"{kind}:std={std}" for std in stds}


REWINDS = {"rewind:epochs=5", "rewind:epochs=10"}
LISTED = {
    "largest-channel": (
        set(product(range(1, 11), ["zero"]))
        | set(product((1, 2, 3), noise("random_init", (0.02, 0.15, 0.1)) | noise("random_noise", STDS) | REWINDS))
    ),
    "most-activated-channel": (
        set(product(range(3, 11), ["zero"]))
        | set(product((1, 2, 3), noise("random_init", STDS) | noise("random_noise", STDS) | REWINDS))
    ),
    "threshold": (
        set(product(LARGE, ["zero"]))
        | set(product(SMALL, noise("random_init", STDS) | noise("random_noise", STDS) | REWINDS))
    ),
    "fine-tuning": set(),
}


def test_there_is_a_file_for_each_study_data_set_and_network() -> None:
    assert grid_names() == sorted("-".join(parts) for parts in product(DATASETS, NETWORKS, STUDIES))


@pytest.mark.parametrize("name", grid_names())
def test_each_file_holds_what_is_listed(name: str) -> None:
    grid, study = read_grid(name), next(study for study in STUDIES if name.endswith(study))
    splits = {"threshold": ("train",), "fine-tuning": ()}.get(study, ("train", "test"))
    for split in splits:
        here = [settings for settings in grid.studies if settings.split == (split,)]
        pairs = [(k, edit) for s in here for k, edit in product(parse_sizes(s.size, s.unit), s.edit)]
        assert set(pairs) == LISTED[study]
        assert len(pairs) == len(set(pairs))
    assert {settings.split for settings in grid.studies} == {(split,) for split in splits}
    for settings in grid.studies:
        assert settings.preset == "paper"
        assert settings.criterion == (("gradient",) if study == "most-activated-channel" else ("weight_norm",))
        assert settings.traced_on == settings.split[0]
        assert settings.repeats == (3 if study == "most-activated-channel" else 10)
        assert settings.n_hardest == 200
        assert not settings.controls
        assert not settings.cross_fit
        assert settings.smallest == (settings.unit == "weight") == (study == "threshold")
        assert settings.dropout_p == (0.8 if study == "threshold" and settings.edit == ("zero",) else 0)
    assert grid.dataset == name.split("-")[0]
    assert grid.training.model == name.removeprefix(f"{grid.dataset}-").removesuffix(f"-{study}").replace("-", "_")
    assert grid.training.recipe == "paper-script"
    assert grid.epoch == (19 if study == "fine-tuning" and grid.dataset == "celeba" else 40)
    assert (grid.fine_tuning is not None) == (study == "fine-tuning")
    if grid.fine_tuning is not None:
        assert grid.fine_tuning.recipe == "paper-pruning"
        assert grid.fine_tuning.model == grid.training.model
        assert str(grid.fine_tuning.objective) == "pruned-contrast:mask=magnitude-smallest"
        assert grid.fine_tuning.objective.fraction == 0.01


def test_costs() -> None:
    assert read_grid("waterbirds-resnet50-largest-channel").n_edited == 2 * (10 + 2 * 3 * 3 * 10 + 6)
    assert read_grid("celeba-deit-tiny-most-activated-channel").n_edited == 2 * 4 * (8 + 2 * 3 * 3 * 3 + 6)
    assert read_grid("waterbirds-deit-base-threshold").n_edited == 8 + 2 * 3 * 3 * 10 + 6
    assert read_grid("waterbirds-resnet50-fine-tuning").n_edited == 0


@pytest.mark.parametrize("scale", ["small", "tiny"])
def test_scales_change_only_what_they_state(scale: str) -> None:
    smaller = read_scale(scale)
    assert smaller is not None
    for name in grid_names():
        full, grid = read_grid(name), smaller.apply_to(read_grid(name))
        assert isinstance(grid, Grid)
        assert grid.training.recipe == "paper-script"
        assert grid.training.model == smaller.networks[full.training.model]
        assert len(grid.studies) == len(full.studies)
        for before, after in zip(full.studies, grid.studies, strict=True):
            kept = {"edit", "repeats"}
            assert before.model_dump(exclude=kept) == after.model_dump(exclude=kept)
            assert len(before.edit) == len(after.edit)
            assert sm.StudySettings(**after.model_dump()) == after
    assert read_scale("full") is None


def test_a_part_of_a_grid() -> None:
    grid = read_grid("waterbirds-resnet50-largest-channel")
    assert [s.edit for s in grid.only(("zero",), ("test",)).studies] == [("zero",)]
    assert len(grid.only(("zero", "rewind"), ()).studies) == 4
    assert grid.only((), ()) == grid
    with pytest.raises(sm.UserError, match="this grid has no such study: choose among random_init on test"):
        grid.only(("mean",), ())
    with pytest.raises(sm.UserError, match="no study 'waterbirds-resnet-threshold': did you mean"):
        read_grid("waterbirds-resnet-threshold")
