"""Low and middle frequencies of an image: what near duplicates and training images are recognised by.

numpy and Pillow only: prediction uses this too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.errors import DataError, ImageError, name_items
from skinlesion_cli.parallel import available_cores, in_order
from skinlesion_cli.progress import Reporter

SIDE_PX = 64
N_FREQUENCIES = 24


def _cosines() -> np.ndarray:
    """The first rows of the orthonormal cosine transform (DCT-II), float64 (24, 64)."""
    frequencies, places = np.arange(N_FREQUENCIES)[:, None], np.arange(SIDE_PX)[None, :]
    rows = np.sqrt(2 / SIDE_PX) * np.cos(np.pi * frequencies * (2 * places + 1) / (2 * SIDE_PX))
    rows[0] /= np.sqrt(2)
    result: np.ndarray = rows
    return result


_COSINES = _cosines()


def spectrum(image: np.ndarray) -> np.ndarray:
    """Cosine transform (DCT-II) of the grey image, squeezed to 64 x 64 pixels; orthonormal, in grey levels.

    Grey is 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601).

    Parameters
    ----------
    image : uint8 (height, width, 3).

    Returns
    -------
    float32 (24, 24), the lowest frequencies: rows are vertical frequencies, columns horizontal ones.
    """
    # Whole pixels are averaged first where the image is much larger: half of the time, and the same signs.
    grey = np.asarray(
        Image.fromarray(image)
        .convert("L")
        .resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=2.0),
        dtype=np.float64,
    )
    result: np.ndarray = (_COSINES @ grey @ _COSINES.T).astype(np.float32)
    return result


def read_spectra(files: Sequence[str], folder: Path, reporter: Reporter, purpose: str) -> np.ndarray:
    """The `spectrum` of each file below a folder, float32 (n_files, 24, 24); `purpose` names the task that is
    reported.

    Raises
    ------
    DataError : images cannot be read; they are named.
    """
    spectra = np.empty((len(files), N_FREQUENCIES, N_FREQUENCIES), dtype=np.float32)
    problems: list[str] = []

    def read(row: int) -> str | None:
        try:
            spectra[row] = spectrum(read_image(folder / files[row], target_px=SIDE_PX))
        except ImageError as error:
            return f"{files[row]} ({error.message})"
        return None

    with reporter.task(purpose, total=len(files), unit="images") as task:
        for problem in in_order(range(len(files)), read, threads=available_cores()):
            task.advance()
            if problem is not None:
                problems.append(problem)
    if problems:
        raise DataError(f"these images cannot be read: {name_items(problems)}")
    return spectra
