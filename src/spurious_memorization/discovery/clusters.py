"""Clusters of a network's features within each class: small ones, and those with many errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DIMENSIONS = 10
"""Maximum number of principal components of the features."""

ERROR_WEIGHT = 10.0
"""Weight of the error beside the components, which have deviation 1; Domino's own default for both of its terms."""


def small_cluster_scores(
    features: Floats, y: NDArray[np.int64], is_train: NDArray[np.bool_], max_clusters: int, seed: int
) -> Floats:
    """1 - the share of a sample's cluster among the training samples of its class, [samples].

    Sohoni et al. (2020), No Subclass Left Behind (GEORGE): the features of a trained network are clustered within each
    class. Here they are reduced by principal components (there by UMAP), and modeled by a Gaussian mixture with the
    number of clusters, from 2 to `max_clusters`, that has the best silhouette. A sample between clusters has the mean
    of their scores.

    Arguments:
        features: penultimate features, [samples, features].
        y: labels, [samples].
        is_train: whether a sample is one of training, [samples]. The others are assigned to their clusters.
        max_clusters: maximum number of clusters.
        seed: of the mixtures.
    """
    scores = np.full(len(y), np.nan)
    for label in np.unique(y):
        here = y == label
        reduced, train = _components(features[here], is_train[here]), is_train[here]
        mixture = _best_mixture(reduced[train], max_clusters, seed)
        if mixture is None:
            scores[here] = 0.0
            continue
        share = mixture.predict_proba(reduced[train]).mean(0)  # [clusters]
        scores[here] = mixture.predict_proba(reduced) @ (1 - share)
    return scores


def error_mixture_scores(
    features: Floats,
    y: NDArray[np.int64],
    wrong: Floats,
    is_train: NDArray[np.bool_],
    max_clusters: int,
    seed: int,
) -> Floats:
    """The error of a sample's slice, [samples], from 0 to 1.

    After Eyuboglu et al. (2022), Domino: Discovering Systematic Errors with Cross-Modal Embeddings: a mixture over
    features and errors together, so that slices are alike in both. Within a class Domino's term of the label is
    constant. Its term of the prediction is a Gaussian of the error here.

    Arguments:
        features, y, is_train, max_clusters, seed: as for `small_cluster_scores`.
        wrong: 1 - the probability of the label by a network of an early epoch, [samples].
    """
    from sklearn.mixture import GaussianMixture

    scores = np.full(len(y), np.nan)
    for label in np.unique(y):
        here, train = y == label, is_train[y == label]
        error = wrong[here]
        deviation = error[train].std() or 1.0
        both = np.column_stack([_components(features[here], train), ERROR_WEIGHT * error / deviation])
        n = min(max_clusters, max(1, int(train.sum()) // 2))
        mixture: Any = GaussianMixture(n, covariance_type="diag", reg_covar=1e-3, random_state=seed).fit(both[train])
        belongs = mixture.predict_proba(both[train])
        of_slice = (error[train] @ belongs) / belongs.sum(0).clip(1e-12)
        scores[here] = mixture.predict_proba(both) @ of_slice
    return scores


def _components(features: Floats, is_train: NDArray[np.bool_]) -> Floats:
    """Principal components with deviation 1, [samples, components]. They are those of the training samples."""
    from sklearn.decomposition import PCA

    n = min(DIMENSIONS, features.shape[1], int(is_train.sum()))
    pca: Any = PCA(n, whiten=True, random_state=0).fit(features[is_train])
    components: Floats = pca.transform(features)
    return components


def _best_mixture(reduced: Floats, max_clusters: int, seed: int) -> Any:
    """The Gaussian mixture whose clusters have the best silhouette; None if the samples are too few for two."""
    from sklearn.metrics import silhouette_score
    from sklearn.mixture import GaussianMixture

    best: tuple[float, Any] = (-np.inf, None)
    for n in range(2, min(max_clusters, len(reduced) // 2) + 1):
        mixture: Any = GaussianMixture(n, reg_covar=1e-3, random_state=seed).fit(reduced)
        cluster = mixture.predict(reduced)
        if 2 <= len(np.unique(cluster)) < len(reduced):
            value = silhouette_score(reduced, cluster, sample_size=min(2000, len(reduced)), random_state=seed)
            if value > best[0]:
                best = float(value), mixture
    return best[1]
