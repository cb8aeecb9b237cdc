"""Which unlabelled images are worth an expert's time: numbers from probabilities and features, all pure."""

from __future__ import annotations

from typing import Final

import numpy as np

from skinlesion_cli.errors import UsageError

STRATEGIES: Final = ("mixed", "margin", "entropy", "disagreement", "diversity")


def margin_uncertainty(probabilities: np.ndarray) -> np.ndarray:
    """1 minus the gap between the two highest probabilities, (n,), in [0, 1]; high: nearly a tie."""
    ordered = np.sort(np.asarray(probabilities, dtype=np.float64), axis=1)
    return 1.0 - (ordered[:, -1] - ordered[:, -2])


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Shannon entropy over the last axis, divided by that of a uniform guess: in [0, 1]."""
    values = np.asarray(probabilities, dtype=np.float64)
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    result: np.ndarray = -(values * logs).sum(axis=-1) / np.log(values.shape[-1])
    return result


def disagreement(opinions: np.ndarray) -> np.ndarray:
    """How far opinions differ: entropy of their mean minus the mean of their entropies, (n,), in [0, 1].

    It is the mutual information of class and opinion (Houlsby et al., 2011, arXiv:1112.5745); 0 where all say
    the same, however unsure they are.

    Parameters
    ----------
    opinions : (n_opinions, n, n_classes), such as the members of an ensemble. One opinion gives 0.
    """
    values = np.asarray(opinions, dtype=np.float64)
    result: np.ndarray = np.maximum(entropy(values.mean(axis=0)) - entropy(values).mean(axis=0), 0.0)
    return result


def farthest_first(features: np.ndarray, count: int, first: int) -> np.ndarray:
    """Indexes of `count` rows, each as far as can be from those before it (k-center greedy).

    Covers the data with few images (Sener and Savarese, 2018, arXiv:1708.00489). Distances are Euclidean
    between rows of length 1; a tie goes to the earlier row.

    Parameters
    ----------
    features : (n, n_features). first : the row to begin with.
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    rows = features / np.where(length > 0, length, 1.0)
    chosen = [first]
    nearest = np.linalg.norm(rows - rows[first], axis=1)
    while len(chosen) < min(count, len(rows)):
        nearest[chosen] = -1.0
        following = int(nearest.argmax())
        chosen.append(following)
        nearest = np.minimum(nearest, np.linalg.norm(rows - rows[following], axis=1))
    return np.array(chosen, dtype=np.int64)


def select(strategy: str, count: int, scores: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Indexes of the images to label, most wanted first.

    Parameters
    ----------
    strategy : one of `STRATEGIES`. `mixed` spreads the choice over the most uncertain: of the `5 * count`
        images with the highest entropy, those farthest from one another.
    scores : `margin`, `entropy` and `disagreement`, each (n,), high for the uncertain.
    features : (n, n_features).

    Raises
    ------
    UsageError : no such strategy.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"no strategy named {strategy!r}", "Strategies: " + ", ".join(STRATEGIES))
    by_entropy = np.argsort(-scores["entropy"], kind="stable")
    if strategy == "diversity":
        return farthest_first(features, count, int(by_entropy[0]))
    if strategy == "mixed":
        candidates = by_entropy[: 5 * count]
        result: np.ndarray = candidates[farthest_first(features[candidates], count, 0)]
        return result
    return np.argsort(-scores[strategy], kind="stable")[:count]
