"""Fingerprints: bits known by hand, how many may differ, and images that have none."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.fingerprints import FREQUENCIES, FingerprintSet, fingerprints_of

SIDE = np.arange(24)


def spectrum(signs: np.ndarray, size: float = 5.0) -> np.ndarray:
    """One spectrum with these signs and coefficients of this size, float32 (1, 24, 24)."""
    return np.where(signs, size, -size).astype(np.float32)[None]


def with_flipped(spectra: np.ndarray, count: int, *, first: int = 0) -> np.ndarray:
    """The same with the signs of so many frequencies of the fingerprint changed."""
    changed = spectra.copy()
    rows, columns = FREQUENCIES[:, first : first + count]
    changed[0, rows, columns] *= -1
    return changed


# Positive where the vertical frequency is below the horizontal one.
ABOVE = spectrum(SIDE[:, None] < SIDE[None, :])
RANDOM = spectrum(np.random.default_rng(0).random((24, 24)) < 0.5)


def test_frequencies_begin_at_radius_six_and_come_with_their_transpose() -> None:
    assert FREQUENCIES.shape == (2, 256)
    assert FREQUENCIES[:, :8].T.tolist() == [[0, 6], [6, 0], [1, 6], [6, 1], [2, 6], [6, 2], [4, 5], [5, 4]]
    assert len(set(map(tuple, FREQUENCIES.T.tolist()))) == 256
    # 256 pairs of whole numbers, unequal, have squares that sum to 36 ... 356.
    assert FREQUENCIES[:, -2:].T.tolist() == [[10, 16], [16, 10]]


def test_bits_of_a_pattern_made_by_hand() -> None:
    codes, has_one = fingerprints_of(np.concatenate([ABOVE, -ABOVE, ABOVE.transpose(0, 2, 1)]))
    # Signs alternate, as each frequency is followed by its transpose: 10101010.
    assert codes.tolist() == [[0xAA] * 32, [0x55] * 32, [0x55] * 32]
    assert has_one.tolist() == [True, True, True]
    rows_even, _ = fingerprints_of(spectrum(np.broadcast_to(SIDE[:, None] % 2 == 0, (24, 24))))
    # (0, 6), (6, 0), (1, 6), (6, 1), (2, 6), (6, 2), (4, 5), (5, 4): odd rows are negative.
    assert rows_even[0, 0] == 0b11011110


@pytest.mark.parametrize("turn", range(8))
def test_all_eight_orientations_agree_in_every_sign(turn: int) -> None:
    odd = np.where(SIDE % 2, -1, 1).astype(np.float32)
    turned = RANDOM.transpose(0, 2, 1) if turn & 4 else RANDOM
    turned = turned * odd[None, None, :] if turn & 2 else turned
    turned = turned * odd[None, :, None] if turn & 1 else turned
    seen = FingerprintSet(fingerprints_of(np.concatenate([ABOVE, RANDOM]))[0])
    assert seen.agreement(turned).tolist() == [256]
    assert seen.contains(with_flipped(turned, 32, first=100)).tolist() == [True]


def test_up_to_32_of_256_signs_may_differ() -> None:
    seen = FingerprintSet(fingerprints_of(RANDOM)[0])
    for count, expected in ((1, 255), (32, 224), (33, 223)):
        assert seen.agreement(with_flipped(RANDOM, count, first=100)).tolist() == [expected]
    near, far = with_flipped(RANDOM, 32, first=100), with_flipped(RANDOM, 33, first=100)
    assert seen.contains(np.concatenate([far, near])).tolist() == [False, True]
    # Of the 64 lowest, 18 may.
    assert seen.agreement(with_flipped(RANDOM, 18)).tolist() == [238]
    assert seen.agreement(with_flipped(RANDOM, 19)).tolist() == [0]
    assert seen.contains(spectrum(np.random.default_rng(1).random((24, 24)) < 0.5)).tolist() == [False]


def test_an_image_without_detail_has_no_fingerprint_and_is_in_no_set() -> None:
    flat = np.zeros((1, 24, 24), np.float32)
    faint = RANDOM * 0.09  # coefficients of 0.45 grey levels
    # Clear in 191 of its signs, then in 192.
    nearly, enough = faint.copy(), faint.copy()
    for spectra, count in ((nearly, 191), (enough, 192)):
        rows, columns = FREQUENCIES[:, :count]
        spectra[0, rows, columns] = RANDOM[0, rows, columns]
    codes, has_one = fingerprints_of(np.concatenate([flat, faint, nearly, enough]))
    assert has_one.tolist() == [False, False, False, True]
    seen = FingerprintSet(np.concatenate([np.zeros((1, 32), np.uint8), codes]))
    asked = np.concatenate([flat, faint, nearly, enough])
    assert seen.contains(asked).tolist() == [False, False, False, True]


def test_a_set_without_fingerprints_contains_nothing() -> None:
    assert FingerprintSet(np.empty((0, 32), np.uint8)).contains(RANDOM).tolist() == [False]
    assert FingerprintSet(np.zeros((1, 32), np.uint8)).contains(RANDOM[:0]).tolist() == []
