"""What an output may replace: nothing but an earlier result of the same kind.

Every command that writes where the user says asks here before it does any work. An output may be new, an
empty file, or an earlier result of this toolkit; an input, anything of somebody else's, a device, a pipe or a
linked folder is refused with exit code 2.

A folder that mirrors the inputs (overlays, thumbnails) holds a mark, `MARK`,
that names the table it belongs to.
"""

from __future__ import annotations

import glob
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from skinlesion_cli.artifacts.files import atomic_write, exclusive
from skinlesion_cli.artifacts.own_files import Recogniser, is_overlay
from skinlesion_cli.errors import SkinLesionError, UsageError, name_items

MARK: Final = ".skinlesion-output.json"
# Names of `maps.relative_path`.
OVERLAY_NAMES: Final = re.compile(r"\.cam(-[A-Z]+)?(\.raw)?\.(png|npz)$")
_MAX_MARK_BYTES = 4096
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
)


def check_file(output: Path, is_own: Recogniser, what: str, inputs: Iterable[str | Path] = ()) -> bool:
    """Refuse an output file that would replace anything but an earlier result.

    Parameters
    ----------
    is_own : whether an existing file is an earlier result. what : the kind of it, for the message.
    inputs : files, folders, patterns and `@list` files that the command reads.

    Returns
    -------
    Whether an earlier result is there, which this output replaces.

    Raises
    ------
    UsageError : it is an input, a folder, device or pipe, or a file that is no such result.
    SkinLesionError : no file can be created there.
    """
    refuse_special(output)
    _refuse_inputs(output, inputs)
    replaces = False
    # A link is replaced itself; what it leads to stays.
    if output.is_file() and not output.is_symlink() and output.stat().st_size:
        if not is_own(output):
            raise UsageError(
                f"{output} is there already, and is not {what} written by skinlesion",
                "Name a new file; nothing was changed.",
            )
        replaces = True
    _probe(output.parent)
    return replaces


def refuse_special(output: Path) -> None:
    """Refuse what is neither a regular file nor a free name, whether named itself or through a link.

    Raises
    ------
    UsageError : it is a folder, device, pipe or socket.
    """
    try:
        mode = os.stat(output).st_mode
    except OSError:
        return
    kind = next((name for test, name in _KINDS if test(mode)), None)
    if kind is None:
        return
    through = " (through a link)" if output.is_symlink() else ""
    if stat.S_ISDIR(mode):
        hint = f"Name a file, such as {output / 'predictions.csv'}."
    else:
        hint = "Name a file; predict streams rows to stdout with --output -."
    raise UsageError(f"the output {output} is {kind}{through}, which cannot be replaced by a file", hint)


def check_folder(
    folder: Path,
    files: Iterable[str] = (),
    is_own: Recogniser = lambda path: False,
    inputs: Iterable[str | Path] = (),
) -> None:
    """Refuse an output folder that is a link, or where one of `files` would replace something else.

    Parameters
    ----------
    files : names of what will be written directly in it. is_own :
        whether an existing one is an earlier result.
    inputs : files that the command reads.

    Raises
    ------
    UsageError : it is a link or no folder, or one of the files is an input or not an earlier result.
    SkinLesionError : nothing can be created in it.
    """
    refuse_linked(folder)
    foreign = []
    for name in files:
        path = folder / name
        refuse_special(path)
        _refuse_inputs(path, inputs)
        if path.is_file() and not path.is_symlink() and path.stat().st_size and not is_own(path):
            foreign.append(name)
    if foreign:
        raise UsageError(
            f"{folder} holds files that skinlesion did not write and would replace: {name_items(foreign)}",
            "Name another folder; nothing was changed.",
        )
    _probe(folder)


def check_new_folder(folder: Path) -> None:
    """Refuse a folder for a packed model that is a link, or that holds anything; hidden files aside.

    Raises
    ------
    UsageError : either, or it is no folder.
    SkinLesionError : nothing can be created in it.
    """
    check_folder(folder)
    held = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    if held:
        raise UsageError(f"the folder {folder} is not empty: {name_items(held)}", "Name a new folder.")


def refuse_linked(folder: Path) -> None:
    """Refuse a folder to write to that is a link, or that is no folder.

    Raises
    ------
    UsageError : either.
    """
    if folder.is_symlink():
        raise UsageError(
            f"the output folder {folder} is a link, and links are not followed to write",
            f"Remove the link, or name the folder itself: {os.path.realpath(folder)}",
        )
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"the output folder {folder} is not a folder", "Name a new folder.")


def check_mirror(
    folder: Path,
    belongs_to: Path,
    inputs: Iterable[str | Path] = (),
    *,
    names: re.Pattern[str] = OVERLAY_NAMES,
    is_own: Recogniser | None = None,
) -> None:
    """Refuse a folder for overlays or thumbnails that is an input, a link, or another table's.

    Parameters
    ----------
    names : of the files that will be written. is_own : whether an existing one of them is an earlier result;
    None: `is_overlay`.

    Raises
    ------
    UsageError : any of these, or it holds such files that are no earlier result.
    """
    refuse_linked(folder)
    _probe(folder)
    if not folder.is_dir():
        return
    if any(_same(folder, name) for name in inputs):
        raise UsageError(
            f"{folder} is an input, and the overlays would be written into it",
            "Choose another --output; its name decides where the overlays go.",
        )
    owner = owner_of(folder)
    if owner is not None:
        if owner != belongs_to.name and _is_alive(folder.parent / owner):
            raise UsageError(
                f"{folder} holds the overlays of {owner}, which {belongs_to.name} would replace",
                f"Choose another --output, or remove {owner} and {folder.name} first.",
            )
        return
    foreign = list(_foreign_below(folder, names, is_own or is_overlay))
    if foreign:
        raise UsageError(
            f"{folder} holds links, or files that skinlesion did not write and would replace: "
            f"{name_items(foreign)}",
            "Choose another --output; its name decides where the overlays go.",
        )


def owner_of(folder: Path) -> str | None:
    """The name of the table that a folder of overlays or thumbnails belongs to, or None."""
    try:
        with (folder / MARK).open("rb") as file:
            owner = json.loads(file.read(_MAX_MARK_BYTES))["of"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(owner).name if isinstance(owner, str) else None


@contextmanager
def hold_mirrors(folders: Sequence[Path], belongs_to: Path) -> Iterator[None]:
    """Hold folders of overlays or thumbnails for one table while it is written, and mark them.

    Raises
    ------
    SkinLesionError : another process writes into one of them.
    """
    if not folders:
        yield
        return
    first, *others = folders
    try:
        with exclusive(first, "overlays"):
            atomic_write(first / MARK, json.dumps({"of": belongs_to.name}).encode())
            with hold_mirrors(others, belongs_to):
                yield
    finally:
        # A run that failed before its first overlay leaves no folder.
        with suppress(OSError):
            if os.listdir(first) == [MARK]:
                (first / MARK).unlink()
                first.rmdir()


def refuse_foreign_overlay(folder: Path, path: Path) -> None:
    """Refuse to replace a file that is no overlay or map, or to write through a link below `folder`.

    Raises
    ------
    UsageError : either.
    """
    for parent in path.parents:
        if parent == folder:
            break
        if parent.is_symlink():
            raise UsageError(f"the folder {parent} is a link, and links are not followed to write")
    if path.is_file() and not path.is_symlink() and not is_overlay(path):
        raise UsageError(
            f"{path} is there already, and was not written by skinlesion", "Choose another --output."
        )


def _refuse_inputs(output: Path, inputs: Iterable[str | Path]) -> None:
    if not os.path.lexists(output):
        return
    for given in inputs:
        name = str(given)
        listed = name[1:] if name.startswith("@") and not os.path.lexists(name) else name
        paths: Iterable[str] = [listed]
        if not os.path.lexists(listed) and glob.has_magic(listed):
            paths = glob.iglob(listed, recursive=True)
        if any(_same(output, path) for path in paths):
            raise UsageError(
                f"the output {output} is one of the inputs", "Name another file; nothing was changed."
            )


def _same(output: Path, name: str | Path) -> bool:
    try:
        return os.path.samefile(output, name)
    except (OSError, ValueError):
        return False


def _is_alive(table: Path) -> bool:
    return os.path.lexists(table) or os.path.lexists(table.with_name(f"{table.name}.partial"))


def _foreign_below(folder: Path, pattern: re.Pattern[str], is_own: Recogniser) -> Iterator[str]:
    """Names below a folder without a mark that an overlay could replace or follow."""
    for here, folders, names in os.walk(folder):
        base = Path(here)
        for name in folders:
            if (base / name).is_symlink():
                yield (base / name).relative_to(folder).as_posix()
        for name in names:
            path = base / name
            if pattern.search(name) and not path.is_symlink() and not is_own(path):
                yield path.relative_to(folder).as_posix()


def _probe(folder: Path) -> None:
    """Create and remove a file where the output is to go, or in the nearest folder above it that exists."""
    place = folder
    while not os.path.lexists(place) and place.parent != place:
        place = place.parent
    if not place.is_dir():
        raise UsageError(f"{place} is not a folder, so nothing can be written below it")
    try:
        with tempfile.TemporaryFile(dir=place, prefix=".skinlesion-"):
            pass
    except OSError as error:
        raise SkinLesionError(
            f"cannot write in {folder}: {error.strerror or error}",
            "Check that it can be written and has free space, or choose another --output.",
        ) from error
