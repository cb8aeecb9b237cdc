"""Every kind of source by name. To add one: a file with `recognise` and `read` in this folder,
and a line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from skinlesion_cli.data.sources import (
    class_folders,
    isic2018,
    isic2019,
    isic_archive,
    kaggle_ham10000,
    labels_csv,
    reviewed,
)
from skinlesion_cli.data.sources.base import Collection, SourceOptions
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy.class_list import ClassList

SOURCES: Mapping[str, ModuleType] = {
    "isic2018": isic2018,
    "ham10000": kaggle_ham10000,
    "isic2019": isic2019,
    "isic-archive": isic_archive,
    "folders": class_folders,
    "csv": labels_csv,
    "reviewed": reviewed,
}
# Kinds that are no published dataset: their images are from whatever the folder is called.
_OWN_KINDS = ("folders", "csv", "reviewed")
_OWN_IMAGES = ("isic2018", "isic2019", "folders")
_OWN_LABELS = ("isic2018", "isic2019")
_MAX_WRAPPINGS = 4
_ATTRIBUTION_FILES = ("ATTRIBUTION.txt", "ATTRIBUTION.md", "LICENSE.txt", "LICENSE")
_MAX_ATTRIBUTION_BYTES = 64 << 10


def require_there(path: Path) -> None:
    """Refuse a source that does not exist (UsageError)."""
    if not path.exists():
        raise UsageError(f"{path} does not exist", "Check the path that --from names.")


def read_source(path: Path, name: str, options: SourceOptions, source_name: str | None = None) -> Collection:
    """Read a source by name, or by what it looks like where the name is `auto`.

    A folder that holds nothing but another folder (as unpacked archives do) is looked into. `source_name`
    names the dataset in the manifest; without it, a published dataset has the name of its kind, and your own
    that of its folder.

    Raises
    ------
    UsageError : there is nothing at `path`, the name is unknown, or it looks like no source or like several.
    DataError : what it holds cannot be used.
    """
    require_there(path)
    if options.images is not None and not options.images.is_dir():
        raise UsageError(f"there is no folder {options.images}", "Check the path that --images names.")
    if name != "auto" and name not in SOURCES:
        raise UsageError(f"no kind of source named {name!r}", "Known: auto, " + ", ".join(SOURCES))
    path, fitting = _recognised(path, options.classes)
    if name == "auto":
        if len(fitting) != 1:
            looks = f"like {' and '.join(fitting)}" if fitting else "like no source that is known"
            raise UsageError(f"{path} looks {looks}", "Say what it is with --format: " + ", ".join(SOURCES))
        name = fitting[0]
    _refuse_unused(name, options)
    collection: Collection = SOURCES[name].read(path, options)
    if name in _OWN_KINDS:
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        source_name = source_name or folder.name
        if collection.attribution == "unknown":
            collection = replace(collection, attribution=_attribution(folder))
    return replace(collection, name=source_name or collection.name)


def _refuse_unused(name: str, options: SourceOptions) -> None:
    """Refuse options that this kind of source has no use for (UsageError), instead of ignoring them."""
    if options.images is not None and name in _OWN_IMAGES:
        raise UsageError(
            f"--images is not for sources of the kind {name}", "Their layout says where the images are."
        )
    if options.class_map and name in _OWN_LABELS:
        raise UsageError(
            f"--map is not for sources of the kind {name}", "Their classes are those of the challenge."
        )


def _attribution(folder: Path) -> str:
    """What a file beside the images says about whose they are; `unknown` where there is none."""
    for name in _ATTRIBUTION_FILES:
        try:
            with (folder / name).open("rb") as file:
                text = file.read(_MAX_ATTRIBUTION_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            continue
        if text:
            return f"{folder.name}, {name}:\n{text}"
    return "unknown"


def _recognised(path: Path, classes: ClassList) -> tuple[Path, list[str]]:
    """The folder within a folder that is recognised, and the kinds that it fits;
    `path` itself where none is.
    """
    inner = path
    for _ in range(_MAX_WRAPPINGS):
        if fitting := [known for known, source in SOURCES.items() if source.recognise(inner, classes)]:
            # A published layout stays one where somebody has put tables or class folders beside it.
            return inner, [known for known in fitting if known not in _OWN_KINDS] or fitting
        if not inner.is_dir():
            break
        visible = [child for child in inner.iterdir() if not child.name.startswith((".", "__MACOSX"))]
        if len(visible) != 1 or not visible[0].is_dir() or visible[0].is_symlink():
            break
        inner = visible[0]
    return path, []
