"""The published search and the override rule, on tables made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.policies.published import PUBLISHED_GRID, published_thresholds
from skinlesion_cli.decisions.settings import Target, require_targets
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.errors import UsageError
from tests.support.class_lists import ISIC2018


def rows(mel: list[float], akiec: list[float] | None = None) -> np.ndarray:
    """Probabilities with these melanoma (and AKIEC) columns; the rest goes to NV."""
    found = np.zeros((len(mel), 7))
    found[:, 0] = mel
    found[:, 3] = akiec if akiec is not None else 0.0
    found[:, 1] = 1.0 - found.sum(axis=1)
    return found


def test_the_published_grid():
    assert len(PUBLISHED_GRID) == 199
    assert PUBLISHED_GRID[66] == pytest.approx(0.336666666, abs=1e-9)
    assert PUBLISHED_GRID[77] == pytest.approx(0.391111111, abs=1e-9)
    assert (PUBLISHED_GRID[0], PUBLISHED_GRID[-1]) == (0.01, 0.99)


def test_published_takes_the_largest_threshold_that_meets_both():
    # 20 melanomas; 17 of them (0.85) have p >= 0.34, just above grid index 66; 3 are at 0.05.
    mel = [0.05] * 3 + [0.34] + [0.9] * 16
    # 20 nevi: 17 (0.85) low, 3 high.
    nevi = [0.02] * 17 + [0.95] * 3
    labels = np.array([0] * 20 + [1] * 20)
    found = published_thresholds(labels, rows(mel + nevi), [Target("MEL", 0.85, 0.85)], ISIC2018)
    # sensitivity 17/20 needs θ <= 0.34: index 66 (0.33667) fits, index 67 (0.34162) does not.
    assert found.thresholds["MEL"] == PUBLISHED_GRID[66]
    assert found.rule["MEL"] == "target"


def test_published_index_77_for_akiec():
    akiec = [0.1] * 1 + [0.392] + [0.8] * 2
    nevi = [0.0] * 6
    labels = np.array([3] * 4 + [1] * 6)
    found = published_thresholds(
        labels, rows([0.0] * 10, akiec + nevi), [Target("AKIEC", 0.75, 0.70)], ISIC2018
    )
    assert found.thresholds["AKIEC"] == PUBLISHED_GRID[77]


def test_the_search_counts_a_probability_equal_to_the_threshold():
    theta = float(PUBLISHED_GRID[66])
    labels = np.array([0, 0, 1, 1])
    values = rows([theta, theta, 0.0, 0.0])
    found = published_thresholds(labels, values, [Target("MEL", 0.85, 0.85)], ISIC2018)
    assert found.thresholds["MEL"] == theta
    # ... but the decision wants more than the threshold.
    assert decide(values, found.thresholds, ISIC2018).decided.tolist() == [1, 1, 1, 1]


def test_published_falls_back_to_the_lower_floor_then_to_one_half_and_says_so():
    labels = np.array([0] * 4 + [1] * 10)
    # Sensitivity 0.85 needs all four: θ <= 0.3. Of the nevi 6 are below, 4 above: specificity 0.6.
    values = rows([0.3, 0.9, 0.9, 0.9] + [0.1] * 6 + [0.5] * 4)
    found = published_thresholds(labels, values, [Target("MEL", 0.85, 0.85)], ISIC2018)
    assert found.rule["MEL"] == "fallback_floor"
    assert found.thresholds["MEL"] == PUBLISHED_GRID[PUBLISHED_GRID <= 0.3][-1]
    hopeless = rows([0.3, 0.9, 0.9, 0.9] + [0.1] * 4 + [0.5] * 6)
    found = published_thresholds(labels, hopeless, [Target("MEL", 0.85, 0.85)], ISIC2018)
    assert (found.thresholds["MEL"], found.rule["MEL"]) == (0.5, "fallback_0.5")


@pytest.mark.parametrize("label", [1, 0])
def test_published_without_positives_or_without_negatives(label: int):
    found = published_thresholds(np.full(5, label), rows([0.4] * 5), [Target("MEL", 0.85, 0.85)], ISIC2018)
    assert (found.thresholds["MEL"], found.rule["MEL"]) == (0.5, "fallback_0.5")


def test_decide_melanoma_wins_and_says_which_threshold_fired():
    values = rows([0.35, 0.35, 0.10, 0.60], [0.45, 0.10, 0.42, 0.0])
    found = decide(values, {"AKIEC": 0.4, "MEL": 0.3}, ISIC2018)
    assert found.argmax.tolist() == [3, 1, 1, 0]
    assert found.decided.tolist() == [0, 0, 3, 0]
    assert found.fired.tolist() == [0, 0, 3, 0]


def test_priority_is_what_is_asked_for():
    values = rows([0.35], [0.45])
    assert decide(values, {"MEL": 0.3, "AKIEC": 0.4}, ISIC2018, ["AKIEC", "MEL"]).decided.tolist() == [3]
    assert decide(values, {"MEL": 0.3, "AKIEC": 0.4}, ISIC2018, ["AKIEC"]).decided.tolist() == [3]


def test_at_the_threshold_nothing_fires_even_in_float32():
    values = rows([0.3, 0.3]).astype(np.float32)
    theta = float(values[0, 0])
    assert decide(values, {"MEL": theta}, ISIC2018).fired.tolist() == [-1, -1]
    assert decide(values, {"MEL": np.nextafter(theta, 0)}, ISIC2018).fired.tolist() == [0, 0]


def test_without_thresholds_the_argmax_stands_and_a_tie_goes_to_the_first_class():
    found = decide(np.array([[0.0, 0.5, 0.5, 0, 0, 0, 0]]), {}, ISIC2018)
    assert (found.decided.tolist(), found.fired.tolist()) == ([1], [-1])


def test_certain_probabilities():
    sure = np.eye(7)
    found = decide(sure, {"MEL": 0.5, "AKIEC": 0.5}, ISIC2018)
    assert found.decided.tolist() == list(range(7))


@pytest.mark.parametrize("arguments", [("MEL", 1.0, 0.8), ("MEL", 0.8, 0.0), ("MEL", float("nan"), None)])
def test_targets_that_are_none(arguments):
    with pytest.raises(UsageError):
        Target(*arguments)


def test_targets_of_other_lists():
    require_targets([Target("MEL", 0.8), Target("malignant", 0.8)], ISIC2018)
    with pytest.raises(UsageError, match="XXX"):
        require_targets([Target("MEL", 0.8), Target("XXX", 0.8)], ISIC2018)


def test_unknown_class_in_priority():
    with pytest.raises(UsageError, match="nevus"):
        decide(rows([0.1]), {"MEL": 0.3}, ISIC2018, ["nevus"])
