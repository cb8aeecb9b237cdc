"""Fingerprints of photographs: whether an image is one of a set, without the images of the set.

A fingerprint is the signs of 256 middle frequencies of the grey image (`data.spectrum`), 32 bytes. Encoding a
photograph again, scaling it, or changing its brightness or colours keeps nearly all signs; those of
two different photographs agree in about half. Turning and mirroring an image swaps frequencies and changes
signs, so that one transform serves all eight orientations.

The frequencies are those of the perceptual hash that finds near duplicates (`data.near_duplicates`), but
higher: dermoscopic images resemble each other in the low ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

N_BITS = 256
N_BYTES = N_BITS // 8
# Of 256 signs; measured by `examples/fingerprint_study.py`.
MIN_AGREEMENT = 224
# In grey levels. Rounding pixels to whole levels moves a coefficient by 0.2 (one standard deviation).
_CLEAR = 0.5
_MIN_CLEAR = 192
_FROM_RADIUS = 6
_SPECTRUM_SIDE = 24


def _frequencies() -> np.ndarray:
    """Rows and columns of the frequencies in a spectrum, int64 (2, 256), the lowest first.

    Each is followed by its transpose; those on the diagonal, which have none, are omitted.
    """
    side = range(_SPECTRUM_SIDE)
    above = [(u, v) for u in side for v in side if u < v and u * u + v * v >= _FROM_RADIUS**2]
    lowest = sorted(above, key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair[0]))[: N_BITS // 2]
    return np.array([each for u, v in lowest for each in ((u, v), (v, u))]).T


FREQUENCIES = _frequencies()
# Of each sign: 2 if its vertical frequency is odd, plus 1 if its horizontal one is.
_PARITY = 2 * (FREQUENCIES[0] % 2) + FREQUENCIES[1] % 2
# What becomes of the signs of each parity when an image is mirrored: a mirrored image has odd frequencies of
# that direction negated. One row for each combination of the two mirrors.
_FLIPS = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float32)
_N_LOW = 64
_MIN_LOW_AGREEMENT = 46
_LOW_BY_PARITY = [np.flatnonzero(_PARITY[:_N_LOW] == parity) for parity in range(4)]


def fingerprints_of(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fingerprints of images that have one.

    An image has none where fewer than 192 of its coefficients are above the noise of rounding (0.5 grey
    levels): the signs of a flat or very smooth image say nothing.

    Parameters
    ----------
    spectra : float32 (n_images, 24, 24).

    Returns
    -------
    uint8 (n_fingerprints, 32), eight signs to a byte, the lowest frequency in its highest bit, 1 where the
    coefficient is positive; and bool (n_images,), which images have one.
    """
    coefficients = _coefficients(spectra)
    has_one = _has_one(coefficients)
    return np.packbits(coefficients[has_one] > 0, axis=1), has_one


@dataclass(frozen=True)
class FingerprintSet:
    """`codes` are fingerprints, uint8 (n_fingerprints, 32)."""

    codes: np.ndarray

    @cached_property
    def _low(self) -> list[np.ndarray]:
        """Signs (-1, 1) of the 64 lowest frequencies by parity, float32 (n_of_parity, n_fingerprints)."""
        signs = np.unpackbits(self.codes[:, : _N_LOW // 8], axis=1).T.astype(np.float32) * 2 - 1
        return [np.ascontiguousarray(signs[rows]) for rows in _LOW_BY_PARITY]

    def agreement(self, spectra: np.ndarray) -> np.ndarray:
        """Of how many signs each image agrees with the fingerprint that is most like it, in any orientation.

        Parameters
        ----------
        spectra : float32 (n_images, 24, 24).

        Returns
        -------
        int64 (n_images,), 0 to 256; 0 where none is nearly as alike as `MIN_AGREEMENT`, and for images that
        have no fingerprint.
        """
        coefficients = _coefficients(spectra)
        result = np.zeros(len(coefficients), np.int64)
        has_one = _has_one(coefficients)
        # One by one: the products of a single image stay in the cache.
        for index in np.flatnonzero(has_one):
            result[index] = self._best(np.where(coefficients[index] > 0, 1, -1).astype(np.float32))
        return result

    def contains(self, spectra: np.ndarray) -> np.ndarray:
        """Which images are in the set, bool (n_images,); parameters as of `agreement`."""
        found: np.ndarray = self.agreement(spectra) >= MIN_AGREEMENT
        return found

    def _best(self, signs: np.ndarray) -> int:
        """The highest agreement with these signs, float32 (256,)."""
        ways = np.stack([signs, signs.reshape(-1, 2)[:, ::-1].ravel()])  # as it is, and transposed
        # The lowest frequencies, which noise changes least, rule out nearly all. A product of signs is
        # agreeing minus differing ones, and mirroring changes the sign of what each parity contributes.
        by_parity = [ways[:, rows] @ low for rows, low in zip(_LOW_BY_PARITY, self._low, strict=True)]
        low = np.tensordot(_FLIPS, np.stack(by_parity), 1)  # (4, 2, n_fingerprints)
        candidates = np.flatnonzero(low.ravel() >= 2 * _MIN_LOW_AGREEMENT - _N_LOW)
        flip, way, row = np.unravel_index(candidates, low.shape)
        turned = np.packbits(ways[way] * _FLIPS[flip][:, _PARITY] > 0, axis=1)
        differing = np.unpackbits(turned ^ self.codes[row], axis=1).sum(axis=1, dtype=np.int64)
        return int(N_BITS - differing.min(initial=N_BITS))


def _coefficients(spectra: np.ndarray) -> np.ndarray:
    """The middle frequencies, float32 (n_images, 256)."""
    result: np.ndarray = spectra[:, FREQUENCIES[0], FREQUENCIES[1]]
    return result


def _has_one(coefficients: np.ndarray) -> np.ndarray:
    result: np.ndarray = (np.abs(coefficients) > _CLEAR).sum(axis=1) >= _MIN_CLEAR
    return result
