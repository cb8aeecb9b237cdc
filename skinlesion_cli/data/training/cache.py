"""Images decoded once into a memory-mapped array that several processes share.

Training reads every image many times, and decoding a JPEG costs more than augmenting it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from joblib import Parallel, delayed

from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.data.preprocess import resize_square
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.errors import DataError, ImageError, SkinLesionError, name_items
from skinlesion_cli.progress import Reporter

# Part of the cache's name: a different resizing filter needs a different cache.
_INTERPOLATION = "antialias"


@dataclass(frozen=True)
class DecodedCache:
    """`images` is a read-only memory map, uint8 (n_images, size_px, size_px, 3), upright RGB; `index` maps an image
    id to its row."""

    images: np.ndarray
    index: dict[str, int]
    path: Path

    def __getitem__(self, identity: str) -> np.ndarray:
        return self.images[self.index[identity]]


def open_cache(
    folder: Path,
    rows: Iterable[tuple[str, str]],
    images_folder: Path,
    size_px: int,
    manifest_sha256: str,
    reporter: Reporter,
    *,
    sha256: Mapping[str, str] | None = None,
    n_jobs: int | None = None,
) -> DecodedCache:
    """Open the cache of these images at this size, and make it first where there is none.

    It is written under a temporary name and renamed when it is whole; a second process that needs the same
    cache waits for the first.

    Parameters
    ----------
    rows : (image id, file relative to `images_folder`).
    size_px : side of the squares; see `preprocess.resize_square`.
    manifest_sha256 : names the dataset, so that another one gets another cache.
    sha256 : image id -> hash that the file must have; not checked where None.
    n_jobs : threads that decode (Pillow works in parallel on threads); all cores where None.

    Raises
    ------
    DataError : images cannot be read or are not those of the manifest; all are named, nothing is written.
    SkinLesionError : the disk is full or cannot be written.
    """
    ordered = sorted(rows)
    key = _key(ordered, size_px, manifest_sha256)
    path = folder / f"{key}.npy"
    cached = _open(path, ordered, size_px)
    if cached is not None:
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{key}.lock"):
            cached = _open(path, ordered, size_px)
            if cached is None:
                _build(path, ordered, images_folder, size_px, reporter, sha256, n_jobs)
                cached = _open(path, ordered, size_px)
    except OSError as error:
        raise SkinLesionError(
            f"cannot write the image cache: {error.strerror or error}",
            f"{len(ordered):,} images of {size_px} px need {len(ordered) * size_px**2 * 3 / 1e9:.1f} GB "
            f"in {folder}.",
        ) from error
    if cached is None:
        raise SkinLesionError(f"the image cache {path.name} was changed by someone else while it was written")
    return cached


def _key(rows: Sequence[tuple[str, str]], size_px: int, manifest_sha256: str) -> str:
    listing = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return f"images-{manifest_sha256[:12]}-{listing[:8]}-{size_px}px-{_INTERPOLATION}"


def _open(path: Path, rows: Sequence[tuple[str, str]], size_px: int) -> DecodedCache | None:
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except ValueError:
        return None  # not a whole array: made again
    if images.dtype != np.uint8 or images.shape != (len(rows), size_px, size_px, 3):
        return None
    return DecodedCache(
        images=images, index={identity: row for row, (identity, _) in enumerate(rows)}, path=path
    )


def _build(
    path: Path,
    rows: Sequence[tuple[str, str]],
    images_folder: Path,
    size_px: int,
    reporter: Reporter,
    sha256: Mapping[str, str] | None,
    n_jobs: int | None,
) -> None:
    # One name for all attempts: what a killed process left behind is overwritten (the lock is held).
    temporary = path.with_name(f".{path.name}.tmp")
    problems: list[str] = []
    try:
        array = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.uint8, shape=(len(rows), size_px, size_px, 3)
        )
        _reserve(temporary)

        def decode(row: int) -> str | None:
            identity, file = rows[row]
            try:
                data = (images_folder / file).read_bytes()
                if sha256 is not None and sha256_bytes(data) != sha256[identity]:
                    return f"{file} (changed since the dataset was made)"
                array[row] = resize_square(read_image(data, target_px=size_px), size_px)
            except ImageError as error:
                return f"{file} ({error.message})"
            except OSError as error:
                return f"{file} ({error.strerror or error})"
            return None

        threads = Parallel(n_jobs=n_jobs or os.cpu_count() or 1, prefer="threads", return_as="generator")
        with reporter.task(f"decoding images to {size_px} px", total=len(rows), unit="images") as task:
            for problem in threads(delayed(decode)(row) for row in range(len(rows))):
                task.advance()
                if problem is not None:
                    problems.append(problem)
        if problems:
            raise DataError(
                f"these images of the dataset cannot be used: {name_items(problems)}",
                "Run `skinlesion download` again: it brings back what is missing or damaged.",
            )
        array.flush()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _reserve(path: Path) -> None:
    """Take the disk space first: a memory map on a full disk kills the process instead of raising."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
