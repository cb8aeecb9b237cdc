"""Images decoded once into a memory-mapped array that several processes share.

Training reads every image many times, and decoding a JPEG costs more than augmenting it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock

from skinlesion_cli.artifacts.files import replace_file, sha256_bytes
from skinlesion_cli.config.schema import Interpolation
from skinlesion_cli.data.preprocess import resize_square
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.errors import ArtifactError, DataError, ImageError, SkinLesionError, name_items
from skinlesion_cli.parallel import available_cores, in_order
from skinlesion_cli.progress import Reporter


@dataclass(frozen=True, order=True)
class ImageFile:
    """An image of the dataset: its id, its file relative to the folder of images,
    and the sha256 of that file.
    """

    id: str
    file: str
    sha256: str

    def read(self, folder: Path, size_px: int, interpolation: Interpolation = "antialias") -> np.ndarray:
        """The image as uint8 (size_px, size_px, 3); see `preprocess.resize_square`.

        Raises
        ------
        ArtifactError : the file is missing or has another hash.
        ImageError : it cannot be decoded.
        """
        try:
            data = (folder / self.file).read_bytes()
        except OSError as error:
            raise ArtifactError(f"{self.file} ({error.strerror or error})") from None
        if sha256_bytes(data) != self.sha256:
            raise ArtifactError(f"{self.file} (changed since the dataset was made)")
        return resize_square(read_image(data, target_px=size_px), size_px, interpolation)


@dataclass(frozen=True)
class DecodedCache:
    """`images` is a read-only memory map, uint8 (n_images, size_px, size_px, 3), upright RGB;
    `index` maps an image
    id to its row."""

    images: np.ndarray
    index: dict[str, int]
    path: Path

    def __getitem__(self, identity: str) -> np.ndarray:
        result: np.ndarray = self.images[self.index[identity]]
        return result


def open_cache(
    folder: Path,
    files: Iterable[ImageFile],
    images_folder: Path,
    size_px: int,
    reporter: Reporter,
    *,
    interpolation: Interpolation = "antialias",
    threads: int | None = None,
) -> DecodedCache:
    """Open the cache of these images at this size; create it first if there is none.

    The cache is written under a temporary name and renamed when it is complete. A second process that needs
    the same cache waits for the first. Its name depends on the ids and hashes of the images, so a cache only
    ever contains images whose hashes were verified, and on the size and the filter.

    Parameters
    ----------
    size_px, interpolation : side of the squares, and filter; see `preprocess.resize_square`.
    threads : number of decoding threads (Pillow releases the interpreter lock); all usable cores if None.

    Raises
    ------
    ArtifactError : images are missing or their hashes differ from the manifest; all are named,
        nothing is written.
    DataError : images cannot be decoded; all are named, nothing is written.
    SkinLesionError : the cache cannot be written, for example because the disk is full.
    """
    ordered = sorted(files)
    key = _key(ordered, size_px, interpolation)
    path = folder / f"{key}.npy"
    cached = _open(path, ordered, size_px)
    if cached is not None:
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{key}.lock"):
            cached = _open(path, ordered, size_px)
            if cached is None:
                read = partial(
                    ImageFile.read, folder=images_folder, size_px=size_px, interpolation=interpolation
                )
                _build(path, ordered, size_px, read, reporter, threads or available_cores())
                cached = _open(path, ordered, size_px)
    except OSError as error:
        raise SkinLesionError(
            f"cannot write the image cache: {error.strerror or error}",
            f"{len(ordered):,} images of {size_px} px need {_gigabytes(len(ordered), size_px)} in {folder}.",
        ) from error
    if cached is None:
        raise SkinLesionError(f"another program changed the image cache {path.name} while it was written")
    return cached


def _gigabytes(n_images: int, size_px: int) -> str:
    return f"{n_images * size_px**2 * 3 / 1e9:.1f} GB"


def _key(files: Sequence[ImageFile], size_px: int, interpolation: Interpolation) -> str:
    listing = json.dumps([(file.id, file.sha256) for file in files])
    return f"images-{hashlib.sha256(listing.encode()).hexdigest()[:20]}-{size_px}px-{interpolation}"


def _open(path: Path, files: Sequence[ImageFile], size_px: int) -> DecodedCache | None:
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except ValueError:
        return None  # incomplete: created again
    if images.dtype != np.uint8 or images.shape != (len(files), size_px, size_px, 3):
        return None
    return DecodedCache(images, {file.id: row for row, file in enumerate(files)}, path)


def _build(
    path: Path,
    files: Sequence[ImageFile],
    size_px: int,
    read: Callable[[ImageFile], np.ndarray],
    reporter: Reporter,
    threads: int,
) -> None:
    # One name for all attempts: leftovers of a killed process are overwritten (the lock is held).
    temporary = path.with_name(f".{path.name}.tmp")
    problems: list[SkinLesionError] = []

    def decode(image: ImageFile) -> np.ndarray | SkinLesionError:
        try:
            return np.ascontiguousarray(read(image))
        except ImageError as error:
            return DataError(f"{image.file} ({error.message})")
        except ArtifactError as error:
            return error

    try:
        # Written, not mapped: a full disk is then an error and not the end of the process, and Windows
        # renames no file that is mapped.
        with temporary.open("wb") as file:
            shape = (len(files), size_px, size_px, 3)
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            _reserve(file, math.prod(shape))
            label = f"decoding images to {size_px} px, {_gigabytes(len(files), size_px)} on disk"
            with reporter.task(label, total=len(files), unit="images") as task:
                for decoded in in_order(files, decode, threads=threads):
                    task.advance()
                    if isinstance(decoded, SkinLesionError):
                        problems.append(decoded)
                    elif not problems:
                        file.write(decoded.data)
            if problems:
                raise _all_in_one(problems)
            file.flush()
            os.fsync(file.fileno())
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _all_in_one(problems: Sequence[SkinLesionError]) -> SkinLesionError:
    mismatch = any(isinstance(problem, ArtifactError) for problem in problems)
    return (ArtifactError if mismatch else DataError)(
        f"these images of the dataset cannot be used: {name_items(problem.message for problem in problems)}",
        "Run `skinlesion download` again: it restores missing and changed images.",
    )


def _reserve(file: IO[bytes], size_bytes: int) -> None:
    """Allocate the space first, where the system can: a disk that is too small is known before hours of
    decoding.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, file.tell() + size_bytes)
