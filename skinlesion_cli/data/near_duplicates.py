"""Near duplicates: one photograph, re-encoded, recoloured, turned or mirrored, under two lesion ids.

Two steps, both on one cosine transform of the grey image. Candidates have nearly the same perceptual hash,
the signs of the lowest frequencies. They are confirmed by the correlation of the middle frequencies:
dermoscopic images resemble each other (a dark spot on pink skin), so that low frequencies accuse thousands of
pairs, but hairs, bubbles and network agree only in the same photograph. Turning and mirroring a square swaps
frequencies and flips signs, so that one transform serves all eight orientations.

Source of the hash: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), here
with signs instead of the median. That such pairs exist: Abhishek et al. (2025), arXiv:2401.14497.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skinlesion_cli.data.groups import connected
from skinlesion_cli.data.spectrum import N_FREQUENCIES, read_spectra
from skinlesion_cli.progress import Reporter

_HASH_FREQUENCIES = 8
_N_BITS = _HASH_FREQUENCIES**2 - 1  # without the mean
MAX_DISTANCE_BITS = 10
# On HAM10000, pairs of different photographs stay below 0.94, re-encoded ones lie above 0.99.
MIN_CORRELATION = 0.95
_DETAIL_FROM = 6
_BLOCK_ROWS = 512


@dataclass(frozen=True)
class Pair:
    """Two images that show the same; `correlation` (-1 to 1) is that of their details, once aligned."""

    first: str
    second: str
    distance_bits: int
    correlation: float


def find_pairs(
    rows: Sequence[tuple[str, str]],
    images_folder: Path,
    reporter: Reporter,
    *,
    max_distance_bits: int = MAX_DISTANCE_BITS,
    min_correlation: float = MIN_CORRELATION,
) -> list[Pair]:
    """All pairs of near duplicates among the images, the most alike first.

    Parameters
    ----------
    rows : (image id, file relative to `images_folder`).

    Raises
    ------
    DataError : images cannot be read; they are named.
    """
    ordered = sorted(rows)
    files = [file for _, file in ordered]
    spectra = read_spectra(files, images_folder, reporter, "looking for near duplicates")
    return pairs_of([identity for identity, _ in ordered], spectra, max_distance_bits, min_correlation)


def pairs_of(
    ids: Sequence[str],
    spectra: np.ndarray,
    max_distance_bits: int = MAX_DISTANCE_BITS,
    min_correlation: float = MIN_CORRELATION,
) -> list[Pair]:
    """Near duplicates among images given by their `spectrum`, float32 of shape (n_images, 24, 24)."""
    bits, details = _bits(spectra), _details(spectra)
    best: dict[tuple[int, int], Pair] = {}
    for view in range(8):
        turned = _turned(spectra, view)
        turned_bits, turned_details = _bits(turned), _details(turned)
        for start in range(0, len(ids), _BLOCK_ROWS):
            # A dot product of signs is agreeing minus differing bits.
            agreement = bits[start : start + _BLOCK_ROWS] @ turned_bits[start:].T
            first, second = np.nonzero(agreement >= _N_BITS - 2 * max_distance_bits)
            first, second = first[second > first], second[second > first]
            distances = (_N_BITS - agreement[first, second]) / 2
            first, second = first + start, second + start
            correlations = np.einsum("ij,ij->i", details[first], turned_details[second])
            for index in np.flatnonzero(correlations >= min_correlation).tolist():
                key = (int(first[index]), int(second[index]))
                found = Pair(ids[key[0]], ids[key[1]], int(distances[index]), float(correlations[index]))
                if key not in best or found.correlation > best[key].correlation:
                    best[key] = found
    return sorted(best.values(), key=lambda pair: (-pair.correlation, pair.first, pair.second))


def merged_lesions(lesion_of: Mapping[str, str], pairs: Sequence[Pair]) -> dict[str, str]:
    """Lesion ids in which near duplicates share one, as image id -> lesion id; chains are followed."""
    links = [(lesion_of[pair.first], lesion_of[pair.second]) for pair in pairs]
    leader = connected(lesion_of.values(), links)
    return {identity: leader[lesion] for identity, lesion in lesion_of.items()}


def _turned(spectra: np.ndarray, view: int) -> np.ndarray:
    """The spectra of one of eight orientations: 4 transposes, then 2 flips rows, 1 flips columns."""
    alternating = np.where(np.arange(N_FREQUENCIES) % 2, -1, 1).astype(np.float32)
    turned = spectra.transpose(0, 2, 1) if view & 4 else spectra
    turned = turned * alternating[None, None, :] if view & 1 else turned
    return turned * alternating[None, :, None] if view & 2 else turned


def _bits(spectra: np.ndarray) -> np.ndarray:
    """The hash: signs as -1 and 1, float32 of shape (n_images, 63)."""
    low = spectra[:, :_HASH_FREQUENCIES, :_HASH_FREQUENCIES].reshape(len(spectra), -1)[:, 1:]
    return np.where(low > 0, 1, -1).astype(np.float32)


def _details(spectra: np.ndarray) -> np.ndarray:
    """Middle frequencies, scaled to length 1: a dot product is their correlation (0 for a flat image)."""
    radius = np.hypot(*np.indices((N_FREQUENCIES, N_FREQUENCIES)))
    middle = spectra[:, (radius >= _DETAIL_FROM) & (radius < N_FREQUENCIES)]
    result: np.ndarray = middle / np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-6)
    return result
