"""Result files in the research code's form: written, read back, and calculated from a study's counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch

import spurious_memorization as sm
from spurious_memorization.paper.arguments import ChannelStudy, ThresholdStudy
from spurious_memorization.paper.study_settings import channel_study, percent, threshold_study
from spurious_memorization.paper.text_files import Modified, ResultFile, parse_result, result_files
from spurious_memorization.studies.settings import parse_sizes

AS_IN_THE_README = """1.0000, 0.9891, 0.8929, 0.9858
modified neurons name, index and value
conv1.weight, 28, 4.643474578857422
0.9987, 0.8208, 0.6371, 0.9315
0.9985, 0.8202, 0.6371, 0.9301
"""
OF_TWO_GROUPS = """1.0000, 0.9891, 0.8929, 0.9858
modified neurons name, index and value
conv1.weight, 28, 4.643474578857422
layer1.0.conv1.weight, 3, 0.5
model modified based on gradient from loss with only group 0s samples
0.9987, 0.8208, 0.6371, 0.9315
conv1.weight, 2, 1e-07
layer1.0.conv1.weight, 4, 0.25
model modified based on gradient from loss with only group 1s samples
0.9985, 0.8202, 0.6371, 0.9301
"""
OF_WEIGHTS = """1.0000, 0.9891, 0.8929, 0.9858
modified neurons name, index and value
0.9985, 0.8202, 0.6371, 0.9301
"""


@pytest.mark.parametrize("text", [AS_IN_THE_README, OF_TWO_GROUPS, OF_WEIGHTS])
def test_what_is_read_is_written_again(text: str) -> None:
    assert parse_result(text).text() == text


def test_the_content_and_its_drops() -> None:
    content = parse_result(AS_IN_THE_README)
    assert content.before == (1.0, 0.9891, 0.8929, 0.9858)
    (one,) = content.modified
    assert one.channels == (("conv1.weight", 28, 4.643474578857422),)
    assert one.group is None
    np.testing.assert_allclose(content.drops()[0], [0.0014, 0.1686, 0.2558, 0.055])
    both = parse_result(OF_TWO_GROUPS).modified
    assert [part.group for part in both] == [0, 1]
    assert [len(part.channels) for part in both] == [2, 2]
    assert parse_result(OF_WEIGHTS).modified[0].channels == ()


def test_an_empty_group_has_no_accuracy() -> None:
    content = ResultFile((1.0, math.nan, 0.5, 0.5), (Modified((), None, ((0.5, math.nan, 0.5, 0.5),)),))
    assert content.text().splitlines()[0] == "1.0000, nan, 0.5000, 0.5000"
    assert math.isnan(parse_result(content.text()).drops()[0][1])


@pytest.mark.parametrize("text", ["", "1.0, 2.0\nsomething\n1.0, 2.0\n", AS_IN_THE_README + "not, numbers\n"])
def test_what_is_no_result_file_is_refused(text: str) -> None:
    with pytest.raises(sm.UserError, match="this is not a result file"):
        parse_result(text)


def study_of(
    run: sm.Run, arguments: ChannelStudy | ThresholdStudy, *criterion: str
) -> tuple[sm.Study, str, ResultFile]:
    of_channels = isinstance(arguments, ChannelStudy)
    settings = channel_study(arguments, *criterion, 3) if of_channels else threshold_study(arguments, 3)
    result = sm.study(run, settings)
    ((name, content),) = result_files(run, result, settings.split[0]).items()
    return result, name, content


@pytest.fixture
def run(trained: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    return tiny.copied(trained, tmp_path_factory.mktemp("copies") / "run")


def accuracies(run: sm.Run, model, split: str) -> list[float]:
    samples = run.read_data().samples(split)
    with torch.no_grad():
        right = model(samples.batch().inputs).argmax(1).numpy() == samples.y
    return [float(right[samples.g == group].mean()) for group in range(4)]


@pytest.mark.slow
def test_a_largest_channel_file_is_what_the_edited_networks_say(run: sm.Run) -> None:
    arguments = ChannelStudy(experiment_split="test", modification_mode="random_noise", noise_std=2.0, top_k=2)
    result, name, content = study_of(run, arguments, "weight_norm")
    assert name == "random_noise_std2.0_global_top2_largest_neuron.txt"
    model = run.network(3)
    norms = {n: p.detach().flatten(1).norm(dim=1) for n, p in model.named_parameters() if p.ndim == 4}
    first = sorted(((float(v), n, i) for n, of in norms.items() for i, v in enumerate(of)), reverse=True)[:2]
    (one,) = content.modified
    assert [(channel, index) for channel, index, _ in one.channels] == [(n, i) for _, n, i in first]
    assert [value for *_, value in one.channels] == pytest.approx([value for value, *_ in first])
    assert content.before == pytest.approx(accuracies(run, model, "test"))
    seeds = result.variants()["seed"]
    assert len(one.after) == len(seeds) == 10
    units = sm.parse_units(model, [f"{n}:{i}" for _, n, i in first], sm.Selection(with_bias=False))
    for seed, after in zip(seeds, one.after, strict=True):
        edited = sm.edits.edited(model, sm.edits.random_noise(units, 2.0, seed=int(seed)))
        assert after == pytest.approx(accuracies(run, edited, "test"))
    assert len(set(one.after)) > 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:all .* are classified correctly:UserWarning")
def test_a_most_activated_channel_file_has_a_part_for_each_group(run: sm.Run) -> None:
    arguments = ChannelStudy(modification_mode="rewind", row_back_n_epochs=2, top_k=3)
    _, name, content = study_of(run, arguments, "gradient")
    assert name == "rewind_poorest_random_batch200_2epochs_back_global_top3_most_activated_neuron.txt"
    assert [part.group for part in content.modified] == [0, 1, 2, 3]
    model, data, older = run.network(3), run.read_data(), run.state(1)
    assert content.before == pytest.approx(accuracies(run, model, "train"))
    for part in content.modified:
        assert len(part.channels) == 3
        assert [value for *_, value in part.channels] == sorted((v for *_, v in part.channels), reverse=True)
        hardest = sm.hardest_samples(model, data.train, part.group, 200, loss="cross_entropy_on_probabilities")
        scores = sm.criteria.gradient(
            model,
            hardest,
            select=sm.Selection(layers=("conv",), with_bias=False),
            loss="cross_entropy_on_probabilities",
        )
        units = sm.top(scores, 3)
        assert [(channel, index) for channel, index, _ in part.channels] == list(units)
        assert part.after == (
            pytest.approx(accuracies(run, sm.edits.edited(model, sm.edits.rewind(units, older)), "train")),
        )


@pytest.mark.slow
def test_a_threshold_file_has_no_channels(run: sm.Run) -> None:
    arguments = ThresholdStudy(modification_mode="random_init", noise_std=0.5, modification_percentage=0.3)
    result, name, content = study_of(run, arguments)
    assert name == "random_init_0.3_std0.5_global_largest_neuron.txt"
    (one,) = content.modified
    assert one.channels == ()
    assert len(one.after) == 10
    assert result.record["threshold_everywhere"]
    smallest = ThresholdStudy(if_smallest_magnitude=True, modification_percentage=0.05, dropout_p=0.8)
    _, name, content = study_of(run, smallest)
    assert name == "zero_0.05_global_smallest_neuron.txt"
    assert len(content.modified[0].after) == 1


@pytest.mark.parametrize("fraction", [0.05, 0.075, 0.1, 0.15, 0.2, 0.4, 0.5, 0.6, 1e-5, 2e-5, 3e-5])
def test_fractions_reach_the_study_as_they_are(fraction: float) -> None:
    assert parse_sizes((percent(fraction),), "weight") == [fraction]


@pytest.mark.slow
def test_each_part_of_the_papers_selection_has_a_flag_of_its_own(run: sm.Run) -> None:
    """The preset only chooses among settings: given one by one, they make the same study."""
    common = {"epoch": "3", "split": ("train",), "controls": 0, "cross_fit": False}
    weights = {"criterion": ("weight_norm",), "unit": "weight", "size": ("20%",), "edit": ("random_noise:std=0.1",)}
    preset = sm.study(run, sm.StudySettings(**common, **weights, preset="paper"))
    options = {
        "layers": ("conv",),
        "threshold_everywhere": True,
        "noise": "uniform",
        "loss": "cross_entropy_on_probabilities",
    }
    by_flag = sm.study(run, sm.StudySettings(**common, **weights, **options))
    assert preset.variants()["digest"].tolist() == by_flag.variants()["digest"].tolist()
    assert preset.results().equals(by_flag.results())
    channels = {"criterion": ("weight_norm",), "size": ("3",)}
    preset = sm.study(run, sm.StudySettings(**common, **channels, preset="paper"))
    flags = {"layers": ("conv",), "with_bias": False, "exclude": ("*bn*", "*downsample*", "*fc*")}
    by_flag = sm.study(run, sm.StudySettings(**common, **channels, **flags))
    assert preset.variants()["digest"].tolist() == by_flag.variants()["digest"].tolist()


def test_what_does_not_fit_is_refused(run: sm.Run) -> None:
    with pytest.raises(sm.UserError, match="layers 'attention': choose among conv and linear"):
        sm.study(run, sm.StudySettings(layers=("attention",)))
    with pytest.raises(sm.UserError, match="--threshold-everywhere is for single weights"):
        sm.study(run, sm.StudySettings(threshold_everywhere=True))
