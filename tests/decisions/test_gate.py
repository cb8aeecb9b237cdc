"""The gate on statistics made by hand: where it fails, and how far an image is from the rest."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.quality_gate import UNFAMILIAR, FeatureModel, fit_features, fit_gate
from skinlesion_cli.errors import DataError

NAMES = ("log_sharpness", "brightness", "hair_share", "marker_share")


@pytest.fixture(scope="module")
def statistics() -> np.ndarray:
    """401 images: sharpness 0 ... 400 in order, brightness shuffled, shares of hair and marker too."""
    generator = np.random.default_rng(0)
    steps = np.arange(401.0)
    return np.stack([steps, *(generator.permutation(steps) / width for width in (400, 1000, 4000))], axis=1)


def image(sharpness: float = 200.0, brightness: float = 0.5, hair: float = 0.2, marker: float = 0.05) -> dict:
    return dict(zip(NAMES, (sharpness, brightness, hair, marker), strict=True))


def test_each_check_fails_beyond_its_share_of_the_training_images(statistics):
    # 0.06 for six checks: 1 % each, which of 401 evenly spaced values is the 4th from the end.
    gate = fit_gate(NAMES, statistics, false_alarm_rate=0.06)
    one_sided = ("too_blurred", "too_dark", "too_bright", "hair", "marker")
    assert gate.checks == (*one_sided, "not_dermoscopic")
    limits = [gate.limits[name] for name in ("too_blurred", "too_dark", "too_bright", "hair", "marker")]
    assert limits == pytest.approx([-4.0, -0.01, 0.99, 0.396, 0.099])
    for changes, name in (
        ({"sharpness": 3.9}, "too_blurred"),
        ({"brightness": 0.0099}, "too_dark"),
        ({"brightness": 0.9901}, "too_bright"),
        ({"hair": 0.3961}, "hair"),
        ({"marker": 0.0991}, "marker"),
    ):
        verdict = gate.verdict(image(**changes))
        assert (verdict.failed, verdict.flagged) == ((name,), True)
    within = gate.verdict(image(4.1, 0.5, 0.2, 0.05))
    assert (within.failed, within.flagged) == ((), False)


def test_an_image_of_less_contrast_than_the_training_images_fails(statistics):
    names = (*NAMES, "contrast")
    contrast = np.random.default_rng(4).permutation(np.arange(10.0, 411.0))[:, None]
    # 0.07 for seven checks: 1 % each, so that four of the 401 images (10 to 13) have less than the limit.
    gate = fit_gate(names, np.hstack([statistics, contrast]), false_alarm_rate=0.07)
    assert gate.limits["low_contrast"] == pytest.approx(-14.0)
    assert gate.verdict(image() | {"contrast": 13.9}).failed == ("low_contrast",)
    assert gate.verdict(image() | {"contrast": 200.0}).failed == ()


def test_the_score_is_the_share_of_training_images_that_look_worse(statistics):
    gate = fit_gate(NAMES, statistics)
    # 40 of 401 images are less sharp than 40; nothing else about this one is so rare.
    assert gate.verdict(image(sharpness=40.0)).score == pytest.approx(0.1)
    assert gate.verdict(image(hair=0.4)).score == pytest.approx(0.0)
    assert gate.verdict(image(hair=9.0)).score == 0.0


def test_all_together_is_the_mahalanobis_distance(statistics):
    from scipy.spatial.distance import mahalanobis

    gate = fit_gate(NAMES, statistics)
    # Ledoit and Wolf, 2004, lemmas 3.2 to 3.4, of the standardised statistics z.
    z = (statistics - statistics.mean(axis=0)) / statistics.std(axis=0)
    sample = z.T @ z / len(z)
    d2 = ((sample - np.eye(4)) ** 2).sum()
    b2 = sum(((np.outer(row, row) - sample) ** 2).sum() for row in z) / len(z) ** 2
    shrunk = (b2 / d2) * np.eye(4) + (1 - b2 / d2) * sample
    assert 0.001 < b2 / d2 < 0.999
    inverse = np.linalg.inv(shrunk * np.outer(statistics.std(axis=0), statistics.std(axis=0)))
    distances = [mahalanobis(row, statistics.mean(axis=0), inverse) for row in statistics]
    assert gate.limits["not_dermoscopic"] == pytest.approx(np.quantile(distances, 1 - 0.02 / 6))
    assert gate.quantiles["not_dermoscopic"] == pytest.approx(np.sort(distances))
    assert gate.mean == pytest.approx([200.0, 0.5, 0.2, 0.05])
    # Each statistic of this one occurs, but not together.
    assert gate.verdict(image(390.0, 0.97, 0.39, 0.097)).failed == ("not_dermoscopic",)


def test_a_statistic_that_never_varies_is_no_obstacle(statistics):
    same = statistics.copy()
    same[:, 2] = 0.0
    gate = fit_gate(NAMES, same)
    assert gate.verdict(image(hair=0.0)).failed == ()
    assert "hair" in gate.verdict(image(hair=0.01)).failed


def test_what_no_gate_is_fitted_on(statistics):
    assert fit_gate(NAMES, statistics[:200]).names == NAMES
    with pytest.raises(DataError, match="at least 200 images, there are 199"):
        fit_gate(NAMES, statistics[:199])
    broken = statistics.copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        fit_gate(NAMES, broken)


def test_distance_of_features_is_that_of_the_compact_covariance():
    from scipy.spatial.distance import mahalanobis

    # Two directions of variance 0.04 and 0.01, every other one 0.0004;
    # features of unit length stay as they are.
    model = FeatureModel(
        "net",
        np.zeros(4, dtype=np.float32),
        np.eye(4, dtype=np.float32)[:2],
        np.array([0.04, 0.01], dtype=np.float32),
        0.0004,
    )
    inverse = np.diag([25.0, 100.0, 2500.0, 2500.0])
    rows = np.array([[0.6, 0.8, 0.0, 0.0], [0.0, 0.0, 0.6, 0.8], [0.5, 0.5, 0.5, 0.5]])
    expected = [mahalanobis(row, np.zeros(4), inverse) for row in rows]
    np.testing.assert_allclose(model.distance(rows), expected, rtol=1e-6)
    # The length of the features says nothing.
    np.testing.assert_allclose(model.distance(7.0 * rows), expected, rtol=1e-6)


def test_the_compact_covariance_is_that_of_probabilistic_pca():
    from sklearn.decomposition import PCA

    generator = np.random.default_rng(2)
    features = generator.normal(1.0, 0.05, (300, 12)) + generator.normal(0, 0.5, (300, 3)) @ generator.normal(
        0, 1, (3, 12)
    )
    model = fit_features("net", features, n_components=3)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    reference = PCA(n_components=3).fit(unit)
    ours = (
        model.components.T * (model.variances - model.residual_variance) @ model.components
        + np.eye(12) * model.residual_variance
    )
    np.testing.assert_allclose(ours, reference.get_covariance(), atol=1e-6)


def test_features_unlike_those_of_training_are_unfamiliar(statistics):
    generator = np.random.default_rng(3)
    cloud = np.abs(generator.normal(1.0, 0.1, (600, 20)))
    model = fit_features("net", cloud[:300], n_components=5)
    gate = fit_gate(
        NAMES,
        statistics,
        0.02,
        feature_model=model,
        features=cloud[300:],
        features_statistics=statistics[:300],
    )
    assert gate.checks[-1] == UNFAMILIAR
    far = model.distance(cloud[300:])
    inverse, centred = gate.precision, statistics[:300] - gate.mean
    pixels = np.sqrt(np.einsum("ni,ij,nj->n", centred, inverse, centred))
    assert gate.features is not None
    assert gate.features.feature_scale == pytest.approx(np.quantile(far, 0.99))
    assert gate.features.pixel_scale == pytest.approx(np.quantile(pixels, 0.99))
    both = np.sqrt((far / np.quantile(far, 0.99)) ** 2 + (pixels / np.quantile(pixels, 0.99)) ** 2)
    # Half of the 0.02 is for this check; the six others share the other half: 0.01 / 6 each.
    assert gate.limits[UNFAMILIAR] == pytest.approx(np.quantile(both, 0.99))
    assert gate.limits["too_dark"] == pytest.approx(np.quantile(-statistics[:, 1], 1 - 0.01 / 6))
    assert gate.verdict(image(), cloud[0]).failed == ()
    foreign = np.zeros(20)
    foreign[3] = 1.0
    assert gate.verdict(image(), foreign).failed == (UNFAMILIAR,)
    with pytest.raises(ValueError, match="needs the features of net"):
        gate.verdict(image())


def test_a_feature_model_needs_enough_images():
    with pytest.raises(DataError, match="at least 200 images, there are 199"):
        fit_features("net", np.ones((199, 4)))
