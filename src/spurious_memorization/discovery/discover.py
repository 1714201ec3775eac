"""Discover candidate groups in a data folder that has labels only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..atomic import write_parquet, write_text
from ..console import labeled, log
from ..datasets.candidate_groups import ATYPICAL, SEED_COLUMN, TYPICAL
from ..datasets.folder import read_data, read_with_settings
from ..datasets.samples import Dataset, Samples
from ..datasets.settings import NO_ATTRIBUTE
from ..datasets.sources import Images
from ..datasets.text_tables import check_replaceable
from ..datasets.texts import Texts
from ..errors import UserError
from ..networks.build import with_own_transform
from ..runs.records import check_same_settings
from ..schedulers.scheduler import announced, workers_for
from ..stored_files import is_stored, read_frame, read_json
from ..training.epoch_selection import stored_probabilities
from ..training.heads import features_of
from ..training.recipes import expanded
from ..training.seeds import seeds_from
from ..training.settings import TrainExecution, TrainingsExecution, TrainSettings
from ..training.several import check_shared
from ..training.shared_training import check_not_launched
from ..training.starting_network import starting_network
from ..training.train import check_network, network_settings, train
from .by_split import by_split
from .candidates import auroc, consensus, is_atypical, stability
from .clusters import error_mixture_scores, small_cluster_scores
from .eiil import environment_scores
from .settings import METHODS, DiscoverSettings
from .telling_words import telling_words
from .xrm import twin_answers, unlike_by_twins

Floats = NDArray[np.float64]

REMEDY = "delete it and run the same command again"


@dataclass(frozen=True, eq=False, kw_only=True)
class Discovery:
    """The result of `discover`.

    Arguments:
        table: one row per sample: path, y, split, attribute ("typical" or "atypical"), minority_score (higher: more
            like a minority sample of its class), unsure (whether the seeds disagree), and with several seeds the
            attribute by each one alone, such as seed_0. It is what the file holds.
        scores: one row per sample: sample (index in the data set), path, y, split, and the mean score by each method.
        methods: one row per method: the columns of `stability`, and auroc if the true attribute was given.
        method: whose groups the table has.
        words: of texts, those that tell atypical from typical samples: as `telling_words` returns them. Of images,
            None.
        notes: sentences that a reader must know.
    """

    table: pd.DataFrame
    scores: pd.DataFrame
    methods: pd.DataFrame
    method: str
    words: pd.DataFrame | None
    notes: tuple[str, ...]


def discover(
    folder: str | Path,
    out: str | Path,
    settings: DiscoverSettings | None = None,
    *,
    compare_with: str | None = None,
    execution: TrainingsExecution | None = None,
) -> Discovery:
    """Find the samples that are unlike the others of their class, by several methods. No attribute is used.

    For each seed a network is trained by ERM, and a pair of twins (`twin_answers`). The methods look at the answers of
    an early epoch (Liu et al. 2021), at the twins (XRM), at environments (EIIL), and at clusters of features (GEORGE,
    Domino). The candidate groups are those of one method. All methods are compared: how well do they agree over seeds,
    and with each other?

    Arguments:
        folder: the data folder.
        out: the table that is written, such as groups.csv. The networks are kept beside it, in groups_networks. A call
            that was stopped continues.
        settings: the method, seeds, the settings of training.
        compare_with: an attribute column that is known after all. It is used for nothing but the area under the ROC
            curve of each method.
        execution: device, workers, batch size of evaluation, and where the networks of each seed are trained.

    Raises:
        UserError: data or network are not usable; the networks were trained with other settings.

    Example:
        ```python
        found = sm.discover("birds", "groups.csv")
        found.table.nlargest(20, "minority_score")
        ```
    """
    check_not_launched("discover")
    folder, out = Path(folder), Path(out)
    settings, execution = settings or DiscoverSettings(), execution or TrainingsExecution()
    check_replaceable(out, "table of candidate groups", {"y", "attribute", "minority_score"})
    if settings.attribute not in (None, NO_ATTRIBUTE):
        raise UserError("--attribute: discover uses no attribute; to judge the methods by it, give --compare-with")
    settings = settings.model_copy(update={"attribute": NO_ATTRIBUTE})
    data = read_with_settings(folder, settings)
    known = None if compare_with is None else read_data(folder, attribute=compare_with, split_seed=settings.split_seed)
    _check_epochs(settings, data)
    place = out.with_name(f"{out.stem}_networks")
    _check_settings(place, settings, data, execution.of_each)
    seeds = seeds_from(settings.seeds)
    log(f"discovering groups of {len(data)} samples: {len(seeds)} seeds, networks in {place}")
    make = partial(_scoring, folder, data, place, settings, execution.of_each)
    with workers_for(execution, make) as workers:
        of_seeds = dict(announced(workers.run(seeds), [f"seed {seed}" for seed in seeds]))
    scores: dict[str, list[Floats]] = {m: [of_seeds[number][m] for number in range(len(seeds))] for m in METHODS}
    methods = stability(scores, data.y)
    if known is not None:
        minority = np.isin(known.g, known.minority)
        is_train = data.split == "train"
        methods["auroc"] = [auroc(np.mean(scores[m], axis=0)[is_train], minority[is_train]) for m in methods["method"]]
    table = candidate_table(data, settings.method, dict(zip(seeds, scores[settings.method], strict=True)))
    write_text(out, table.to_csv(index=False))
    return Discovery(
        table=table,
        scores=_named(data).assign(**{method: np.mean(scores[method], axis=0) for method in METHODS}),
        methods=methods,
        method=settings.method,
        words=telling_words(data, table["attribute"].to_numpy(str)) if isinstance(data.source, Texts) else None,
        notes=_notes(table),
    )


def candidate_table(data: Dataset, method: str, of_seeds: Mapping[int, Floats]) -> pd.DataFrame:
    """The table of `Discovery`, from the scores of one method, {seed: [samples]}."""
    mean = np.mean(list(of_seeds.values()), axis=0)
    atypical = {seed: is_atypical(method, one, data.y) for seed, one in of_seeds.items()}
    votes = np.mean(list(atypical.values()), axis=0)
    return _named(data)[["path", "y", "split"]].assign(
        attribute=_values(is_atypical(method, mean, data.y)),
        minority_score=mean.round(6),
        unsure=(votes > 0) & (votes < 1),
        **({SEED_COLUMN.format(seed): _values(of) for seed, of in atypical.items()} if len(atypical) > 1 else {}),
    )


def _values(atypical: NDArray[np.bool_]) -> NDArray[np.str_]:
    return np.where(atypical, ATYPICAL, TYPICAL)


def _named(data: Dataset) -> pd.DataFrame:
    """One row per sample: sample, path, y (name), split."""
    source = data.source
    paths = [str(path) for path in source.paths] if isinstance(source, Images | Texts) else [None] * len(data)
    labels = [data.groups.classes[label] for label in data.y]
    return pd.DataFrame({"sample": np.arange(len(data)), "path": paths, "y": labels, "split": data.split})


def _notes(table: pd.DataFrame) -> tuple[str, ...]:
    notes = []
    for label, rows in table[table["split"] == "train"].groupby("y", sort=False):
        n = int((rows["attribute"] == ATYPICAL).sum())
        if n in (0, len(rows)):
            notes.append(f"Class {label} has no {'atypical' if not n else 'typical'} training sample.")
    return tuple(notes)


def _check_epochs(settings: DiscoverSettings, data: Dataset) -> None:
    """Check that the early epoch is one of those that are trained.

    Raises:
        UserError: it is not.
    """
    epochs = expanded(_training(settings, 0), data).epochs
    if (settings.early or 1) > epochs:
        wanted = settings.early or 1
        raise UserError(f"--early {wanted}: the networks are trained for {epochs} epochs: name one of them")


def _training(settings: DiscoverSettings, seed: int) -> TrainSettings:
    """The settings of one training."""
    return TrainSettings(**{**settings.given(), "attribute": NO_ATTRIBUTE, "seed": seed})


def _check_settings(place: Path, settings: DiscoverSettings, data: Dataset, execution: TrainExecution) -> None:
    """Store the settings beside the networks, if they give a network, or check that they are the same."""
    file = place / "discovery.json"
    own = settings.model_dump(mode="json", exclude={"method", "seeds", "max_clusters", "early", "eiil_steps"})
    if is_stored(file):
        check_same_settings(read_json(file, REMEDY), own, str(place))
    else:
        check_network(expanded(_training(settings, 0), data), data, execution)
        write_text(file, DiscoverSettings.model_validate(own).model_dump_json(indent=2, include=set(own)) + "\n")


def _scoring(
    folder: Path, data: Dataset, place: Path, settings: DiscoverSettings, execution: TrainExecution
) -> Callable[[int], Mapping[str, Floats]]:
    """What a worker holds: a function that gives the scores of a seed."""
    check_shared(place)

    def scores(seed: int) -> Mapping[str, Floats]:
        with labeled(f"seed {seed}"):
            return _scores_of_seed(folder, data, place, settings, seed, execution)

    return scores


def _scores_of_seed(
    folder: Path, data: Dataset, place: Path, settings: DiscoverSettings, seed: int, execution: TrainExecution
) -> Mapping[str, Floats]:
    """The scores of every method for one seed, {method: [samples]}."""
    config = _training(settings, seed)
    run = train(folder, place / "erm" / f"seed_{seed}", config, resume=True, execution=execution)
    config = expanded(config, data)
    twins = _stored_twins(data, place / "twins" / f"seed_{seed}.parquet", config, settings, execution)
    epoch = settings.early or max(1, config.epochs // 10)
    early = by_split(data, lambda samples: stored_probabilities(run, epoch, samples))  # [samples, classes]
    wrong = 1 - early[np.arange(len(data)), data.y]
    in_place, network = data.with_transform(run.record.data.transform), run.network(run.epochs()[-1])
    features = by_split(
        in_place, lambda samples: features_of(network, samples, config.known_precision, execution).values
    )
    is_train, known = data.split == "train", np.isfinite(wrong)

    def environments(samples: Samples) -> Floats:
        return environment_scores(early[samples.index], samples.y, steps=settings.eiil_steps, seed=seed)

    found = {
        "xrm": unlike_by_twins(twins),
        "early-errors": wrong,
        "eiil": by_split(data, environments),
        "clusters": _where(
            known,
            small_cluster_scores(features[known], data.y[known], is_train[known], settings.max_clusters, seed),
        ),
        "error-mixture": _where(
            known,
            error_mixture_scores(
                features[known], data.y[known], wrong[known], is_train[known], settings.max_clusters, seed
            ),
        ),
    }
    return {**found, "consensus": consensus(list(found.values()), data.y)}


def _stored_twins(
    data: Dataset, file: Path, config: TrainSettings, settings: DiscoverSettings, execution: TrainExecution
) -> Floats:
    """The answers of the twins, [2, samples], read from a file or trained now."""
    if is_stored(file):
        stored: Floats = read_frame(file, {"one": "share", "other": "share"}, REMEDY)[["one", "other"]].to_numpy().T
        return stored
    network = network_settings(config, data)
    data = with_own_transform(data, network)
    torch.manual_seed(config.seed)
    twins = [starting_network(config, network).model for _ in range(2)]
    epochs = settings.twin_epochs or max(1, config.epochs // 2)
    answers = twin_answers(twins, data, config, epochs, execution)
    write_parquet(file, pd.DataFrame(answers.T, columns=["one", "other"]))
    return answers


def _where(known: NDArray[np.bool_], values: Floats) -> Floats:
    """Values of some samples among all, [samples]; nan for the others."""
    found = np.full(len(known), np.nan)
    found[known] = values
    return found
