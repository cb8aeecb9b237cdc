"""Triage is fitted: whole records, with every number worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.statistics import bounds
from skinlesion_cli.decisions.triage_fit import OperatingPoint, conformal_minima, malignant_operating_point

FAR = 10**6  # a horizon so far that only the population counts


@pytest.fixture(autouse=True)
def fresh() -> None:
    bounds.allowed_misses.cache_clear()


def _images(melanomas: list[float], benign: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities and lesions: MEL and NV with these probabilities of MEL, all else of NV."""
    p = np.array(melanomas + benign)
    values = np.zeros((len(p), 7))
    values[:, 0], values[:, 1] = p, 1.0 - p
    return np.array([0] * len(melanomas) + [1] * len(benign)), values, np.arange(len(p)).astype(str)


def test_the_threshold_lies_midway_below_the_lesion_that_may_not_be_missed() -> None:
    # 0.9^29 = 0.0471 <= 0.05: of 29 lesions none may be missed. The least has 0.41, the next below it 0.3.
    images = _images([0.40 + 0.01 * i for i in range(1, 30)], [0.2, 0.3])
    found = malignant_operating_point(*images, horizon=FAR)
    assert found == OperatingPoint(pytest.approx(0.355, abs=1e-7), True, 0.9, 0.9, 0.95, 29, 0, 0)


def test_with_nothing_below_the_threshold_is_half_of_it() -> None:
    images = _images([0.41] * 29, [])
    assert malignant_operating_point(*images, horizon=FAR).threshold == pytest.approx(0.205, abs=1e-7)


def test_too_few_lesions_guarantee_what_they_carry_and_say_how_many_more_it_takes() -> None:
    # 0.05^(1/10) = 0.7411 is all that ten lesions without a miss carry. For 0.9 on as many new lesions as
    # were seen, n old and n new, the r + 1 lowest of all must not all be new, r = floor(n/10):
    # (39·38·37·36)/(78·77·76·75) = 0.0577 for 39 lesions, (40·39·38·37·36)/(80·79·78·77·76)
    # = 0.0274 <= 0.05 for 40; 30 more than 10.
    images = _images([0.5] * 10, [0.2])
    found = malignant_operating_point(*images, horizon=FAR)
    assert found == OperatingPoint(0.0, False, 0.741, 0.9, 0.95, 10, 0, 30)


def test_lesions_of_no_malignant_probability_are_missed_at_any_threshold() -> None:
    images = _images([0.0] * 2 + [0.5] * 27, [0.2])
    found = malignant_operating_point(*images, horizon=FAR)
    assert (found.granted, found.threshold, found.missed) == (False, 0.0, 2)


def test_without_a_malignant_lesion_nothing_is_guaranteed() -> None:
    found = malignant_operating_point(*_images([], [0.2, 0.3]), horizon=FAR)
    assert found == OperatingPoint(0.0, False, None, 0.9, 0.95, 0, 0, 40)


def test_the_minimum_is_the_tenth_smallest_of_ninety_nine() -> None:
    # Nine lesions of MEL: floor(0.1 * 10) = 1, the smallest. Ninety-nine of NV: floor(0.1 * 100) = 10, the
    # tenth.
    mel, nv = [0.51 + 0.01 * i for i in range(9)], [0.001 * i for i in range(1, 100)]
    labels, values, lesions = _images(mel, nv)
    minima = conformal_minima(labels, values, lesions)
    assert minima[0] == pytest.approx(0.51)
    # NV has 1 - p; sorted from 0.901 up in steps of 0.001, the tenth is 0.910.
    assert minima[1] == pytest.approx(0.910)
    assert minima[2:] == (0.0,) * 5
