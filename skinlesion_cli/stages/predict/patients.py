"""What a table says of the patients behind the images: read once, before the first image is predicted.

A row is for an image, for all images of a lesion, or for all images of a patient, by the first of these that
it names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.data.metadata import FIELDS, PatientMetadata
from skinlesion_cli.data.reading import dicom
from skinlesion_cli.data.reading.folders import sniff
from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.errors import DataError, UsageError, name_items
from skinlesion_cli.stages.predict.groups import Lesions, file_of, names_in_tables
from skinlesion_cli.stages.predict.worker import Numbered

_IMAGE, _LESION, _PATIENT = _KEYS = ("image", "lesion_id", "patient_id")
_SHOWN = 5


class Patients:
    """The table of one run; it remembers which images and which rows found no partner.

    An image is looked for by its id, by its file's name with and without suffix; then by its lesion (with
    --group) and by the names of its folders, the nearest first, as lesions and as patients; then by the
    PatientID of a DICOM file. The first row that is found is taken.

    Raises
    ------
    DataError : the file cannot be read as a table, lacks a column, or says two things of one image.
    """

    def __init__(self, path: Path, lesions: Lesions | None = None) -> None:
        # Loads pandas, which prediction without a table does not need.
        from skinlesion_cli.artifacts import user_tables

        content = path.read_bytes()
        self.identity, self._name, self._lesions = sha256_bytes(content), path.name, lesions
        table = user_tables.read(content, path.name)

        def cells(column: str) -> list[str]:
            headers = table.headers_of(column)
            return table.cells[headers[0]].tolist() if headers else [""] * len(table.cells)

        if not any(table.headers_of(key) for key in _KEYS):
            raise DataError(
                f"{path.name} has no column of images, lesions or patients",
                "Name a column image, lesion_id or patient_id.",
            )
        if not any(table.headers_of(name) for name in FIELDS):
            raise DataError(f"{path.name} says nothing of patients", "Name its columns age, sex and site.")
        self._rows: dict[tuple[str, str], PatientMetadata] = {}
        self._not_understood: Counter[str] = Counter()
        contradictions = []
        for keys, values in zip(
            zip(*map(cells, _KEYS), strict=True), zip(*map(cells, FIELDS), strict=True), strict=True
        ):
            key = next(((kind, text) for kind, text in zip(_KEYS, keys, strict=True) if text), None)
            if key is None:
                continue
            patient, words = PatientMetadata.of_texts(*values)
            self._not_understood.update(words)
            if self._rows.setdefault(key, patient) != patient:
                contradictions.append(key[1])
        if contradictions:
            raise DataError(
                f"{path.name} says different things of {name_items(dict.fromkeys(contradictions))}",
                "Give one row for each; where images of one lesion or patient differ, name the images.",
            )
        self._has_patients = any(kind == _PATIENT for kind, _ in self._rows)
        self._images_by_name: dict[str, str] = {}
        self._unused = set(self._rows)
        self._without = 0
        self._first_without: list[str] = []

    def attach(self, batches: Iterable[Sequence[Numbered]]) -> Iterator[Sequence[Numbered]]:
        """The same inputs, each with what the table says of it."""
        for batch in batches:
            yield [(number, self.informed(source)) for number, source in batch]

    def informed(self, source: ImageInput) -> ImageInput:
        """The input with what the table says of it.

        Raises
        ------
        UsageError : a file name in the table means two images.
        """
        key = self._key_of(source)
        if key is None:
            self._without += 1
            if len(self._first_without) < _SHOWN:
                self._first_without.append(source.id)
            return source
        self._unused.discard(key)
        return replace(source, patient=self._rows[key])

    def remember(self, images: Iterable[str]) -> None:
        """Images, by their ids, that an earlier run has predicted: a name that means one of them means no
        other.

        Raises
        ------
        UsageError : a file name in the table means two of them.
        """
        for image in images:
            self._image_key(image)

    def warnings(self) -> list[str]:
        """What was not understood, and which images and rows found no partner; the first five of each."""
        warnings = self.words_not_understood()
        if self._without:
            more = f" ... ({self._without} in all)" if self._without > _SHOWN else ""
            warnings.append(f"{self._name} has no row for {', '.join(self._first_without)}{more}")
        if self._unused:
            names = sorted(text for _, text in self._unused)
            warnings.append(f"rows of {self._name} for no image that was predicted: {name_items(names)}")
        return warnings

    def words_not_understood(self) -> list[str]:
        """Cells that count as not known because no word for them is known."""
        if not self._not_understood:
            return []
        named = [f"{word} ({count})" for word, count in self._not_understood.most_common()]
        return [f"{self._name}, not understood and taken as not known: {name_items(named)}"]

    def _key_of(self, source: ImageInput) -> tuple[str, str] | None:
        key = self._image_key(source.id)
        if key is not None:
            return key
        groups = [parent.name for parent in PurePosixPath(source.id).parents]
        if self._lesions is not None:
            groups.insert(0, self._lesions.grouping.lesion(source.id))
        for name in filter(None, groups):
            for kind in (_LESION, _PATIENT):
                if (kind, name) in self._rows:
                    return kind, name
        is_file = source.member is None and source.content is None and source.refusal is None
        if self._has_patients and is_file and sniff(source.path).reader == "dicom":
            key = (_PATIENT, dicom.patient_id(source.path))
            return key if key in self._rows else None
        return None

    def _image_key(self, image: str) -> tuple[str, str] | None:
        file = file_of(image)
        for name in names_in_tables(image):
            if (_IMAGE, name) in self._rows:
                first = self._images_by_name.setdefault(name, file)
                if first != file:
                    raise UsageError(
                        f"{name} in {self._name} means two images: {first} and {file}",
                        "Write the path of each image below the folder that is predicted.",
                    )
                return _IMAGE, name
        return None


def patients_of(path: Path | None, bundle: Bundle, lesions: Lesions | None) -> Patients | None:
    """The table that `--patients` names; None without it.

    Raises
    ------
    UsageError : there is no such file, or the model makes nothing of it.
    DataError : see `Patients`.
    """
    if path is None:
        return None
    if not path.is_file():
        raise UsageError(
            f"--patients {path} is not a file",
            "Give a CSV of image, lesion_id or patient_id, and age, sex, site.",
        )
    if bundle.metadata_calibration is None:
        takes_it = any(member.recipe.metadata_fields for member in bundle.members)
        raise UsageError(
            f"{bundle.model_id} was calibrated on images only, and predicts from images only"
            if takes_it
            else f"the networks of {bundle.model_id} take no patient metadata",
            "Run `skinlesion train`, `ensemble` and `calibrate` again."
            if takes_it
            else "Omit --patients, or train networks with --metadata age,sex,site.",
        )
    return Patients(path, lesions)
