"""The table of labelled lesions: neighbours by hand, and how little the compact form changes."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.similar_cases import CaseTable, fit_cases, label_counts
from skinlesion_cli.errors import DataError
from tests.support.class_lists import ISIC2018


def table_by_hand() -> CaseTable:
    # Four lesions in a plane; one unit of a code is 0.1 along the first axis and 0.2 along the second.
    return CaseTable(
        network="one",
        mean=np.zeros(3, np.float32),
        components=np.array([[1, 0, 0], [0, 1, 0]], np.float32),
        steps=np.array([0.1, 0.2], np.float32),
        codes=np.array([[10, 0], [0, 5], [6, 4], [-10, 0]], np.int8),
        labels=np.array([1, 0, 1, 4], np.uint8),
    )


def test_nearest_by_hand() -> None:
    # Unit length first: (3, 4, 0) is (0.6, 0.8), exactly the third lesion; the first is (0.4, 0.8) away.
    rows, distances = table_by_hand().nearest(np.array([[3.0, 4.0, 0.0]]), 3)
    assert rows.tolist() == [[2, 1, 0]]
    assert distances[0] == pytest.approx([0.0, np.sqrt(0.36 + 0.04), np.sqrt(0.16 + 0.64)], abs=1e-6)


def test_no_more_neighbours_than_lesions_and_counts_by_frequency() -> None:
    rows, _ = table_by_hand().nearest(np.array([[1.0, 0.0, 0.0]]), 20)
    assert rows.shape == (1, 4)
    assert label_counts(table_by_hand().labels[rows[0]], ISIC2018) == {"NV": 2, "MEL": 1, "BKL": 1}


def photographs(n_lesions: int = 60, seed: int = 3) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two photographs of each lesion; three classes, each around a centre of its own."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_lesions) % 3, 2)
    centres = generator.normal(0, 1, (3, 40))
    features = centres[labels] + generator.normal(0, 0.3, (2 * n_lesions, 40))
    return features, labels, [f"lesion {row // 2:03d}" for row in range(2 * n_lesions)]


def test_one_row_per_lesion_and_bytes_change_distances_little() -> None:
    features, labels, lesions = photographs()
    fitted = fit_cases("one", features, labels, lesions, 7, n_components=59)
    table = fitted.table
    assert table.codes.dtype == np.int8
    assert (table.n_lesions, fitted.lesion_ids[7]) == (60, "lesion 007")
    assert table.labels.tolist() == [row % 3 for row in range(60)]
    assert {int(row) // 2 for row in fitted.images} == set(range(60))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    exact = np.linalg.norm(unit[:1] - unit.reshape(60, 2, 40).mean(axis=1), axis=1)
    rows, distances = table.nearest(features[:1], 60)
    # All 40 directions are kept: what differs comes from bytes and half precision alone.
    assert distances[0] == pytest.approx(exact[rows[0]], abs=0.005)
    assert rows[0, 0] == exact.argmin()


def test_neighbours_of_well_separated_classes_have_the_same_label() -> None:
    table = fit_cases("one", *photographs(), n_classes=7).table
    shares = table.agreement(ISIC2018, count=10)
    assert [shares[name] for name in ("MEL", "NV", "BCC")] == [1.0, 1.0, 1.0]
    assert shares["VASC"] is None
    features, labels, lesions = photographs()
    shuffled = np.repeat(np.random.default_rng(0).permutation(labels[::2]), 2)
    by_chance = fit_cases("one", features, shuffled, lesions, 7).table.agreement(ISIC2018, count=10)
    assert 0.15 < float(by_chance["MEL"] or 0) < 0.5


def test_too_few_lesions_or_two_labels_of_one_are_refused() -> None:
    features, labels, lesions = photographs(29)
    with pytest.raises(DataError, match="at least 30 lesions, there are 29"):
        fit_cases("one", features, labels, lesions, 7)
    features, labels, lesions = photographs()
    labels[0] = 5
    with pytest.raises(DataError, match="two labels"):
        fit_cases("one", features, labels, lesions, 7)
