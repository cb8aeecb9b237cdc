"""Is this an image that the networks know anything about? Checks of quality, fitted on training images.

Most checks look at one statistic of the pixels, and fail where it lies beyond nearly all training images. Two
look at the image as a whole, by its Mahalanobis distance to the training images (Mahalanobis, 1936; as a
detector of foreign images: Lee et al., 2018, arXiv:1807.03888): `not_dermoscopic` at all statistics together,
`unfamiliar` at these and at the features that a network makes of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from skinlesion_cli.errors import DataError

TOO_BLURRED, TOO_DARK, TOO_BRIGHT = "too_blurred", "too_dark", "too_bright"
LOW_CONTRAST, HAIR, MARKER = "low_contrast", "hair", "marker"
NOT_DERMOSCOPIC = "not_dermoscopic"
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
    # Bare skin, say: every lesion stands out from the skin around it.
    LOW_CONTRAST: ("contrast", -1.0),
    HAIR: ("hair_share", 1.0),
    MARKER: ("marker_share", 1.0),
}
UNFAMILIAR = "unfamiliar"
CHECKS: tuple[str, ...] = (*ONE_SIDED, NOT_DERMOSCOPIC, UNFAMILIAR)
FALSE_ALARM_RATE = 0.02
N_COMPONENTS = 128
N_QUANTILES = 401
_NO_GATE = "Add images to the dataset, or predict without a gate: the other commands need none."
FEWEST_IMAGES = 200
# Standard deviation of a statistic that does not vary at all.
_SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class FeatureModel:
    """The features of training images as a Gaussian that fits in a compact table.

    Features are scaled to unit length first, which makes distances comparable between images (Mueller & Hein,
    2025, arXiv:2505.18032). The covariance is that of probabilistic principal components (Tipping & Bishop,
    1999): the leading ones as they are, all others alike.

    Attributes
    ----------
    network : name of the network that makes the features.
    mean : float32 (n_features,). components : float32 (n_components, n_features), orthonormal rows.
    variances : float32 (n_components,), along each component. residual_variance :
        along every other direction.
    """

    network: str
    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    residual_variance: float
    feature_scale: float = 1.0
    pixel_scale: float = 1.0

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance, float64 (n_images,), of pooled features (n_images, n_features)."""
        centred = unit_rows(features) - self.mean
        along = centred @ self.components.T.astype(np.float64)
        rest = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        result: np.ndarray = np.sqrt((along**2 / self.variances).sum(axis=1) + rest / self.residual_variance)
        return result


def fit_features(network: str, features: np.ndarray, n_components: int = N_COMPONENTS) -> FeatureModel:
    """Describe the pooled features of training images, (n_images, n_features).

    Raises
    ------
    DataError : fewer than 200 images.
    """
    if len(features) < FEWEST_IMAGES:
        raise DataError(
            f"the quality gate needs at least {FEWEST_IMAGES} images, there are {len(features)}", _NO_GATE
        )
    values = unit_rows(features)
    mean = values.mean(axis=0)
    n_images, n_features = values.shape
    kept = min(n_components, n_features - 1, (n_images - 1) // 2)
    _, singular, directions = np.linalg.svd(values - mean, full_matrices=False)
    variances = singular**2 / (n_images - 1)
    # The maximum likelihood estimate is the mean over all other directions,
    # those without any variance included.
    residual = max(float(variances[kept:].sum() / (n_features - kept)), 1e-12)
    return FeatureModel(
        network,
        mean.astype(np.float32),
        directions[:kept].astype(np.float32),
        np.maximum(variances[:kept], residual).astype(np.float32),
        residual,
    )


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Features (n_images, n_features) scaled to unit length, float64."""
    values = np.asarray(features, dtype=np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class Verdict:
    """`score` in [0, 1]: the share of training images that look worse, in the worst check.
    `failed`: names.
    """

    score: float
    failed: tuple[str, ...]

    @property
    def flagged(self) -> bool:
        return bool(self.failed)


@dataclass(frozen=True)
class QualityGate:
    """What a good image looks like.

    `names` are the statistics, in order; `mean` (n,) and `precision` (n, n) describe them together.
    `quantiles` holds for each check the badness of training images at evenly spaced ranks; `limits` where it
    fails. Without `features` no image is called unfamiliar.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    precision: np.ndarray
    quantiles: Mapping[str, np.ndarray]
    limits: Mapping[str, float]
    features: FeatureModel | None = None

    @property
    def checks(self) -> tuple[str, ...]:
        """The checks that this gate makes, in the order of `CHECKS`."""
        return tuple(check for check in CHECKS if check in self.limits)

    def verdict(self, statistics: Mapping[str, float], features: np.ndarray | None = None) -> Verdict:
        """Judge one image by its statistics and the pooled features (n_features,)
        of the network in `features`.

        Raises
        ------
        ValueError : the gate looks at features, and none are given.
        """
        if self.features is not None and features is None:
            raise ValueError(f"the quality gate needs the features of {self.features.network}")
        values = np.array([[statistics[name] for name in self.names]])
        row = None if features is None else features[None]
        badness = {check: float(value[0]) for check, value in _badness(self, values, row).items()}
        failed = tuple(check for check in self.checks if badness[check] > self.limits[check])
        ranks = [
            1.0 - float(np.interp(badness[check], self.quantiles[check], np.linspace(0, 1, N_QUANTILES)))
            for check in self.checks
        ]
        return Verdict(score=min(ranks), failed=failed)


def fit_gate(
    names: tuple[str, ...],
    statistics: np.ndarray,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    *,
    feature_model: FeatureModel | None = None,
    features: np.ndarray | None = None,
    features_statistics: np.ndarray | None = None,
) -> QualityGate:
    """Learn the gate from training images.

    Parameters
    ----------
    statistics : float64 (n_images, n_statistics), in the order of `names`.
    false_alarm_rate : wanted share of good images that fail any check; half of it is for `unfamiliar`, which
        knows most, where there are features, and the others share the rest alike.
    feature_model, features, features_statistics : a model of features; features (m, n_features) and
        statistics (m, n_statistics) of good images that it was not fitted on (those that it was fitted on
        would make the limit too strict).

    Raises
    ------
    DataError : fewer than 200 images, or a statistic that is not finite.
    """
    values = np.asarray(statistics, dtype=np.float64)
    if len(values) < FEWEST_IMAGES:
        raise DataError(
            f"the quality gate needs at least {FEWEST_IMAGES} images, there are {len(values)}", _NO_GATE
        )
    if not np.isfinite(values).all():
        raise DataError("a statistic of the training images is not finite")
    # Only fitting needs it, and loading it would take longer than starting to predict.
    from sklearn.covariance import LedoitWolf

    # Shrinkage is towards equal variances, so the statistics, which have different units,
    # are standardised first.
    spread = np.maximum(values.std(axis=0), _SMALLEST_SPREAD)
    covariance = LedoitWolf().fit(values / spread)
    precision = covariance.precision_ / np.outer(spread, spread)
    bare = QualityGate(names, covariance.location_ * spread, precision, {}, {})
    measured = _badness(bare, values)
    if feature_model is not None and features is not None and features_statistics is not None:
        pixels = _badness(bare, features_statistics)[NOT_DERMOSCOPIC]
        feature_model = replace(
            feature_model,
            feature_scale=float(np.quantile(feature_model.distance(features), 0.99)),
            pixel_scale=float(np.quantile(pixels, 0.99)),
        )
        with_features = replace(bare, features=feature_model)
        measured[UNFAMILIAR] = _badness(with_features, features_statistics, features)[UNFAMILIAR]
    quantiles = {
        check: np.quantile(badness, np.linspace(0, 1, N_QUANTILES)) for check, badness in measured.items()
    }
    limits = {
        check: float(np.quantile(badness, 1.0 - false_alarm_rate * _share_of_alarms(check, measured)))
        for check, badness in measured.items()
    }
    return QualityGate(names, bare.mean, bare.precision, quantiles, limits, feature_model)


def _share_of_alarms(check: str, checks: Mapping[str, np.ndarray]) -> float:
    if UNFAMILIAR not in checks:
        return 1.0 / len(checks)
    return 0.5 if check == UNFAMILIAR else 0.5 / (len(checks) - 1)


def _badness(
    gate: QualityGate, values: np.ndarray, features: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    badness = {
        check: sign * values[:, gate.names.index(statistic)]
        for check, (statistic, sign) in ONE_SIDED.items()
        if statistic in gate.names
    }
    centred = values - gate.mean
    badness[NOT_DERMOSCOPIC] = np.sqrt(np.einsum("ni,ij,nj->n", centred, gate.precision, centred))
    if gate.features is not None and features is not None:
        model = gate.features
        badness[UNFAMILIAR] = np.hypot(
            model.distance(features) / model.feature_scale, badness[NOT_DERMOSCOPIC] / model.pixel_scale
        )
    return badness
