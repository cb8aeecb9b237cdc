"""Which lesion a photograph shows: by its folder, or by a table; and the table of one verdict per lesion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from skinlesion_cli.artifacts import output_checks, own_files
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.files import atomic_file, sha256_bytes
from skinlesion_cli.errors import DataError, UsageError, escape_unprintable, name_items
from skinlesion_cli.inference.lesion_verdict import LESION_COLUMNS, LesionTally, LesionVerdict, lesion_table
from skinlesion_cli.inference.prediction import Prediction

BY_FOLDER = "folder"
_SHOWN = 5


def names_in_tables(image: str) -> tuple[str, ...]:
    """What a table may call the image of an id, the surest first: the id, the file of a frame, the name of
    the file, and that without its suffix.
    """
    file = file_of(image)
    path = PurePosixPath(file)
    return tuple(dict.fromkeys((image, file, path.name, path.stem)))


def file_of(image: str) -> str:
    """The id without the number of a frame; names of files that end like one are escaped in ids."""
    return re.sub(r"#\d+$", "", image)


class Grouping(Protocol):
    """Gives each image its lesion."""

    # What a run that is resumed must have in common with the one before.
    identity: str

    def lesion(self, image: str) -> str:
        """The lesion of an id; empty where none is known."""


class ByFolder:
    """The photographs of one folder show one lesion; those in no folder are lesions of their own."""

    identity = BY_FOLDER

    def lesion(self, image: str) -> str:
        parent = str(PurePosixPath(image).parent)
        return "" if parent == "." else parent


class ByTable:
    """A table says it, with a column of images and one of lesions.

    A row names an image by its id, by the name of its file, or by that name without its suffix; all frames of
    a file by the name of the file.
    """

    def __init__(self, path: Path) -> None:
        # Loads pandas, which prediction without a table does not need.
        from skinlesion_cli.artifacts import user_tables

        content = path.read_bytes()
        self.identity = sha256_bytes(content)
        table = user_tables.read(content, path.name)
        columns = []
        for meanings in (("image",), ("lesion_id", "patient_id")):
            headers = [header for column in meanings for header in table.headers_of(column)]
            if not headers:
                raise DataError(
                    f"{path.name} has no column of {meanings[0].removesuffix('_id')}s",
                    "Name its columns image and lesion_id.",
                )
            columns.append(table.cells[headers[0]].tolist())
        self._lesions: dict[str, str] = {}
        several = []
        for image, lesion in zip(*columns, strict=True):
            if not image or not lesion:
                continue
            # As a cell of the table of predictions, whose rows are one line each.
            lesion = escape_unprintable(lesion)
            if self._lesions.setdefault(image, lesion) != lesion:
                several.append(image)
        if several:
            raise DataError(f"{path.name} gives these images several lesions: {name_items(several)}")
        self._name = path.name
        self._users: dict[str, str] = {}

    def lesion(self, image: str) -> str:
        """Raises UsageError if a name in the table means two files."""
        if image in self._lesions:
            return self._lesions[image]
        file = file_of(image)
        for name in names_in_tables(image):
            if name in self._lesions:
                first = self._users.setdefault(name, file)
                if first != file:
                    raise UsageError(
                        f"{name} in {self._name} means two images: {first} and {file}",
                        "Write the path of each image below the folder that is predicted.",
                    )
                return self._lesions[name]
        return ""


class Lesions:
    """The lesions of one run: assigns them, and remembers which images have none."""

    def __init__(self, grouping: Grouping) -> None:
        self.grouping = grouping
        self.without = 0
        self.first_without: list[str] = []

    @property
    def identity(self) -> str:
        return self.grouping.identity

    def of(self, image: str) -> str:
        """The lesion of an image, empty where none is known."""
        lesion = self.grouping.lesion(image)
        if not lesion:
            self.without += 1
            if len(self.first_without) < _SHOWN:
                self.first_without.append(image)
        return lesion

    def warnings(self) -> list[str]:
        """Which images stand alone."""
        if not self.without:
            return []
        more = f" ... ({self.without} in all)" if self.without > _SHOWN else ""
        return [f"no lesion is known for {', '.join(self.first_without)}{more}: each is a lesion of its own"]


def lesions_of(group: str | None) -> Lesions | None:
    """The lesions that `--group` names; None without it.

    Raises
    ------
    UsageError : it is neither `folder` nor a table.
    DataError : the table cannot be read.
    """
    if group is None:
        return None
    if group == BY_FOLDER:
        return Lesions(ByFolder())
    path = Path(group)
    if not path.is_file():
        raise UsageError(
            f"--group {group} is not a file", f"Give a CSV of image and lesion_id, or {BY_FOLDER}."
        )
    return Lesions(ByTable(path))


def table_path(output: Path) -> Path:
    """The table of lesions beside a table of predictions."""
    return output.with_name(output.stem + "-lesions.csv")


def check_output(output: Path, inputs: Sequence[str]) -> None:
    """Refuse a table of lesions that would replace anything but an earlier one; see `check_file`."""
    is_own = own_files.has_header(LESION_COLUMNS)
    output_checks.check_file(table_path(output), is_own, "a table of lesions", inputs)


def write_lesions(
    output: Path, bundle: Bundle, predictions: Iterable[Prediction]
) -> dict[str, LesionVerdict]:
    """Write the table of lesions of finished predictions; the verdicts by lesion."""
    informed = bundle.metadata_calibration
    tally = LesionTally(bundle.classes, bundle.calibration.rule, None if informed is None else informed.rule)
    for prediction in predictions:
        tally.add(prediction)
    verdicts = tally.verdicts()
    with atomic_file(table_path(output), "wb") as file:
        table = lesion_table(bundle.classes)
        file.write(table.header("csv"))
        for verdict in verdicts:
            file.write(table.encode(verdict.to_row(bundle.classes), "csv"))
    return {verdict.lesion: verdict for verdict in verdicts}
