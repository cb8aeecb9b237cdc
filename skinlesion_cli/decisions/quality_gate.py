"""Is this an image that the networks know anything about? Checks of quality, fitted on training images.

Every check looks at one statistic, and fails where it lies beyond nearly all training images. The last,
`not_dermoscopic`, looks at all of them together: the Mahalanobis distance to the training images (Mahalanobis,
1936; as a detector of foreign images: Lee et al., 2018, arXiv:1807.03888).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.errors import DataError

TOO_BLURRED, TOO_DARK, TOO_BRIGHT = "too_blurred", "too_dark", "too_bright"
HAIR, MARKER, NOT_DERMOSCOPIC = "hair", "marker", "not_dermoscopic"
# What is measured of an image (`data.quality.statistics`), in this order.
STATISTICS: tuple[str, ...] = (
    "log_sharpness",
    "brightness",
    "contrast",
    "dark_share",
    "bright_share",
    "hair_share",
    "marker_share",
    "red_over_green",
    "green_over_blue",
    "red_spread",
    "blue_spread",
    "log_edges",
    "centre_minus_border",
)
# check -> (statistic, sign): larger values of sign * statistic are worse.
ONE_SIDED: Mapping[str, tuple[str, float]] = {
    TOO_BLURRED: ("log_sharpness", -1.0),
    TOO_DARK: ("brightness", -1.0),
    TOO_BRIGHT: ("brightness", 1.0),
    HAIR: ("hair_share", 1.0),
    MARKER: ("marker_share", 1.0),
}
CHECKS: tuple[str, ...] = (*ONE_SIDED, NOT_DERMOSCOPIC)
FALSE_ALARM_RATE = 0.02
N_QUANTILES = 401
_FEWEST_IMAGES = 200
# Added to the covariance, as a share of its diagonal, so that it can be inverted.
_RIDGE = 1e-3


@dataclass(frozen=True)
class Verdict:
    """`score` in [0, 1]: the share of training images that look worse, in the worst check. `failed`: names."""

    score: float
    failed: tuple[str, ...]

    @property
    def flagged(self) -> bool:
        return bool(self.failed)


@dataclass(frozen=True)
class QualityGate:
    """What a good image looks like.

    `names` are the statistics, in order; `mean` (n,) and `precision` (n, n) describe them together. `quantiles`
    holds for each check the badness of training images at evenly spaced ranks; `limits` where it fails.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    precision: np.ndarray
    quantiles: Mapping[str, np.ndarray]
    limits: Mapping[str, float]

    def verdict(self, statistics: Mapping[str, float]) -> Verdict:
        """Judge one image by its statistics."""
        values = np.array([[statistics[name] for name in self.names]])
        bad = {check: float(found[0]) for check, found in _badness(self, values).items()}
        failed = tuple(check for check in CHECKS if bad[check] > self.limits[check])
        ranks = [
            1.0 - float(np.interp(bad[check], self.quantiles[check], np.linspace(0, 1, N_QUANTILES)))
            for check in CHECKS
        ]
        return Verdict(score=min(ranks), failed=failed)


def fit_gate(
    names: tuple[str, ...], statistics: np.ndarray, false_alarm_rate: float = FALSE_ALARM_RATE
) -> QualityGate:
    """Learn the gate from training images.

    Parameters
    ----------
    statistics : float64 (n_images, n_statistics), in the order of `names`.
    false_alarm_rate : wanted share of good images that fail any check; each check gets the same part of it.

    Raises
    ------
    DataError : fewer than 200 images, or a statistic that is not finite.
    """
    values = np.asarray(statistics, dtype=np.float64)
    if len(values) < _FEWEST_IMAGES:
        raise DataError(f"the quality gate needs at least {_FEWEST_IMAGES} images, there are {len(values)}")
    if not np.isfinite(values).all():
        raise DataError("a statistic of the training images is not finite")
    mean = values.mean(axis=0)
    covariance = np.cov(values, rowvar=False)
    covariance += _RIDGE * np.diag(np.maximum(np.diag(covariance), 1e-12))
    bare = QualityGate(names, mean, np.linalg.inv(covariance), {}, {})
    quantiles, limits = {}, {}
    for check, found in _badness(bare, values).items():
        quantiles[check] = np.quantile(found, np.linspace(0, 1, N_QUANTILES))
        limits[check] = float(np.quantile(found, 1.0 - false_alarm_rate / len(CHECKS)))
    return QualityGate(names, mean, bare.precision, quantiles, limits)


def _badness(gate: QualityGate, values: np.ndarray) -> dict[str, np.ndarray]:
    found = {
        check: sign * values[:, gate.names.index(statistic)] for check, (statistic, sign) in ONE_SIDED.items()
    }
    centred = values - gate.mean
    found[NOT_DERMOSCOPIC] = np.sqrt(np.einsum("ni,ij,nj->n", centred, gate.precision, centred))
    return found
