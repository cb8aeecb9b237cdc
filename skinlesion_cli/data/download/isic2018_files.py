"""The official files of ISIC 2018 Task 3, and downloading them.

ISIC publishes neither sizes nor hashes. The exact size and the md5 sums were recorded by third parties; those
of the image archives come from an older address, so a difference is only a notice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.data.download.fetch import Expected, Fetched, examine, fetch, remote_size
from skinlesion_cli.data.download.http import Patience
from skinlesion_cli.data.reading.archives import image_members, open_archive
from skinlesion_cli.errors import DataError, SkinLesionError
from skinlesion_cli.progress import Reporter

BASE_URLS = (
    "https://isic-archive.s3.amazonaws.com/challenges/2018/",
    "https://isic-challenge-data.s3.amazonaws.com/2018/",
)
PARTS = ("training", "validation", "test")
_LEDGER = "downloads.json"


@dataclass(frozen=True)
class OfficialFile:
    """One official file. `about_bytes` is for estimates;
    `images` is the number of images the archive must contain.
    """

    name: str
    part: str
    about_bytes: int
    size_bytes: int | None = None
    images: int = 0
    md5: str | None = None
    unconfirmed_md5: str | None = None


OFFICIAL_FILES = (
    OfficialFile(
        "ISIC2018_Task3_Training_GroundTruth.zip", "training", 36_000, md5="8302427e4ce0c107559531b9f444abe9"
    ),
    OfficialFile(
        "ISIC2018_Task3_Training_LesionGroupings.csv",
        "training",
        481_000,
        md5="9517b6aa6902d6c27e234bac8279a64a",
    ),
    OfficialFile("ISIC2018_Task3_Validation_GroundTruth.zip", "validation", 7_000),
    OfficialFile("ISIC2018_Task3_Test_GroundTruth.zip", "test", 11_000),
    OfficialFile(
        "ISIC2018_Task3_Validation_Input.zip",
        "validation",
        51_000_000,
        images=193,
        unconfirmed_md5="c1fbdd4f5468b0d67c61a1b2def87077",
    ),
    OfficialFile("ISIC2018_Task3_Test_Input.zip", "test", 401_000_000, images=1512),
    OfficialFile(
        "ISIC2018_Task3_Training_Input.zip",
        "training",
        2_771_732_744,
        size_bytes=2_771_732_744,
        images=10_015,
        unconfirmed_md5="0c281f121070a8d63457caffcdec439a",
    ),
)


@dataclass(frozen=True)
class Planned:
    """The download of one file: where from, its size, and how much of it is on disk."""

    file: OfficialFile
    urls: tuple[str, ...]
    total_bytes: int
    have_bytes: int

    @property
    def missing_bytes(self) -> int:
        return max(self.total_bytes - self.have_bytes, 0)


def plan(
    files: Sequence[OfficialFile], folder: Path, base_urls: Sequence[str], patience: Patience, *, ask: bool
) -> list[Planned]:
    """Plan the download of these files; with `ask`, unknown sizes are requested from the server."""
    ledger = _read_ledger(folder)
    planned = []
    for file in files:
        urls = tuple(f"{base.rstrip('/')}/{file.name}" for base in base_urls)
        complete = _complete_size(file, folder, ledger)
        have = complete if complete is not None else _size(folder / f"{file.name}.part")
        total = file.size_bytes or complete
        if total is None and ask:
            total = remote_size(urls, patience)
        planned.append(Planned(file, urls, total or file.about_bytes, have))
    return planned


def require_space(planned: Sequence[Planned], folder: Path, images_folder: Path) -> None:
    """Check that the disk has room for the archives and for the images extracted from them.

    Raises
    ------
    SkinLesionError : there is too little space; the message has the bytes needed and free.
    """
    images_bytes = sum(item.total_bytes for item in planned if item.file.images)
    extracted = sum(path.stat().st_size for path in images_folder.glob("*.jpg"))
    needed = sum(item.missing_bytes for item in planned) + max(images_bytes - extracted, 0)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise SkinLesionError(
            f"{needed / 1e9:.1f} GB are needed in {folder} and {free / 1e9:.1f} GB are free",
            "Free some space, choose another --workspace, or download less with --parts.",
        )


def fetch_all(
    planned: Sequence[Planned],
    folder: Path,
    reporter: Reporter,
    patience: Patience,
    *,
    ignore_hashes: bool = False,
) -> list[str]:
    """Download the missing files; each is verified before it is accepted, and its sha256 is recorded.

    Returns
    -------
    Notices for the user.

    Raises
    ------
    DataError, SkinLesionError : as `fetch.fetch`; files that are complete by then are kept.
    """
    ledger = _read_ledger(folder)
    notes: list[str] = []
    for item in planned:
        if _complete_size(item.file, folder, ledger) is not None:
            continue
        expected = _expected(item.file, ledger, ignore_hashes)
        final = folder / item.file.name
        if final.is_file():
            # Placed there by hand, or a run was killed just before the file was recorded.
            try:
                fetched = examine(expected, final, "")
            except DataError as error:
                raise DataError(error.message, f"Remove {final} to download it again.") from None
        else:
            try:
                fetched = fetch(expected, item.urls, folder, reporter, patience)
            except SkinLesionError as error:
                raise type(error)(error.message, _manual_instructions(error.hint, planned)) from None
        notes += fetched.notes
        ledger[item.file.name] = _entry(fetched)
        atomic_write(folder / _LEDGER, (json.dumps(ledger, indent=1, sort_keys=True) + "\n").encode())
    return notes


def _manual_instructions(hint: str, planned: Sequence[Planned]) -> str:
    addresses = "\n".join(f"  {item.urls[0]}" for item in planned)
    return (
        f"{hint}\nWithout a connection: download these files on another machine, put them into one "
        "folder, and run "
        f"`skinlesion download --from FOLDER`:\n{addresses}"
    ).lstrip()


def _expected(file: OfficialFile, ledger: dict[str, dict[str, object]], ignore_hashes: bool) -> Expected:
    def check(path: Path) -> None:
        if not file.name.endswith(".zip"):
            return
        with open_archive(path) as archive:
            n_images = len(image_members(archive))
        if n_images != file.images:
            raise DataError(f"{file.name} contains {n_images:,} images, expected {file.images:,}")

    recorded = ledger.get(file.name, {}).get("sha256")
    return Expected(
        name=file.name,
        size_bytes=None if ignore_hashes else file.size_bytes,
        limit_bytes=4 * file.about_bytes + 10_000_000,
        md5=None if ignore_hashes else file.md5,
        unconfirmed_md5=file.unconfirmed_md5,
        sha256=None if ignore_hashes or not isinstance(recorded, str) else recorded,
        check=check,
    )


def _entry(fetched: Fetched) -> dict[str, object]:
    entry = asdict(fetched)
    return {key: entry[key] for key in ("url", "size_bytes", "sha256", "md5")}


def _read_ledger(folder: Path) -> dict[str, dict[str, object]]:
    """The files downloaded and verified before: file name -> url, size_bytes, sha256, md5."""
    try:
        ledger = json.loads((folder / _LEDGER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / _LEDGER} cannot be read: {error}", "Remove it: every file is then verified again."
        ) from None
    return ledger if isinstance(ledger, dict) else {}


def _complete_size(file: OfficialFile, folder: Path, ledger: dict[str, dict[str, object]]) -> int | None:
    """Size in bytes of a file that was downloaded and verified before;
    None if there is none or it was changed.
    """
    size = _size(folder / file.name)
    return size if size and ledger.get(file.name, {}).get("size_bytes") == size else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
