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
from scipy.fft import dctn

from skinlesion_cli.data.groups import connected
from skinlesion_cli.data.preprocess import resize_square
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.errors import DataError, ImageError, name_items
from skinlesion_cli.parallel import available_cores, in_order
from skinlesion_cli.progress import Reporter

_SIDE_PX = 64
_FREQUENCIES = 24
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
    spectra = _spectra(ordered, images_folder, reporter)
    return pairs_of([identity for identity, _ in ordered], spectra, max_distance_bits, min_correlation)


def spectrum(image: np.ndarray) -> np.ndarray:
    """Low and middle frequencies of an image (uint8, height x width x 3): float32 of shape (24, 24)."""
    grey = resize_square(image, _SIDE_PX) @ np.array([0.299, 0.587, 0.114])
    result: np.ndarray = dctn(grey, norm="ortho")[:_FREQUENCIES, :_FREQUENCIES].astype(np.float32)
    return result


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


def _spectra(rows: Sequence[tuple[str, str]], images_folder: Path, reporter: Reporter) -> np.ndarray:
    spectra = np.empty((len(rows), _FREQUENCIES, _FREQUENCIES), dtype=np.float32)
    problems: list[str] = []

    def read(row: int) -> str | None:
        try:
            spectra[row] = spectrum(read_image(images_folder / rows[row][1], target_px=_SIDE_PX))
        except ImageError as error:
            return f"{rows[row][1]} ({error.message})"
        return None

    with reporter.task("looking for near duplicates", total=len(rows), unit="images") as task:
        for problem in in_order(range(len(rows)), read, threads=available_cores()):
            task.advance()
            if problem is not None:
                problems.append(problem)
    if problems:
        raise DataError(f"these images cannot be read: {name_items(problems)}")
    return spectra


def _turned(spectra: np.ndarray, view: int) -> np.ndarray:
    """The spectra of one of eight orientations: 4 transposes, then 2 flips rows, 1 flips columns."""
    alternating = np.where(np.arange(_FREQUENCIES) % 2, -1, 1).astype(np.float32)
    turned = spectra.transpose(0, 2, 1) if view & 4 else spectra
    turned = turned * alternating[None, None, :] if view & 1 else turned
    return turned * alternating[None, :, None] if view & 2 else turned


def _bits(spectra: np.ndarray) -> np.ndarray:
    """The hash: signs as -1 and 1, float32 of shape (n_images, 63)."""
    low = spectra[:, :_HASH_FREQUENCIES, :_HASH_FREQUENCIES].reshape(len(spectra), -1)[:, 1:]
    return np.where(low > 0, 1, -1).astype(np.float32)


def _details(spectra: np.ndarray) -> np.ndarray:
    """Middle frequencies, scaled to length 1: a dot product is their correlation (0 for a flat image)."""
    radius = np.hypot(*np.indices((_FREQUENCIES, _FREQUENCIES)))
    middle = spectra[:, (radius >= _DETAIL_FROM) & (radius < _FREQUENCIES)]
    result: np.ndarray = middle / np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-6)
    return result
