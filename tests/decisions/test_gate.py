"""The gate on statistics made by hand: where it fails, and how far an image is from the rest."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.quality_gate import CHECKS, fit_gate
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
    assert set(gate.limits) == set(CHECKS)
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


def test_the_score_is_the_share_of_training_images_that_look_worse(statistics):
    gate = fit_gate(NAMES, statistics)
    # 40 of 401 images are less sharp than 40; nothing else about this one is so rare.
    assert gate.verdict(image(sharpness=40.0)).score == pytest.approx(0.1)
    assert gate.verdict(image(hair=0.4)).score == pytest.approx(0.0)
    assert gate.verdict(image(hair=9.0)).score == 0.0


def test_all_together_is_the_mahalanobis_distance(statistics):
    from scipy.spatial.distance import mahalanobis

    gate = fit_gate(NAMES, statistics)
    covariance = np.cov(statistics.T)
    inverse = np.linalg.inv(covariance + 1e-3 * np.diag(np.diag(covariance)))
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
