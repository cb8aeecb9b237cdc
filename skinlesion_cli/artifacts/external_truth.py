"""Truth from elsewhere: labels and lesions of images, and how they are matched to ids of predictions.

Ids are matched as they stand; where some do not match, without folders and image suffixes, and the notes say
so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts.external_tables import class_labels, read_table, share_columns
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import probability_columns
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy.class_list import ClassList

_SUFFIX = re.compile(r"\.(jpe?g|jfif|png|tiff?|bmp|webp|gif|dcm|dicom|heic|avif|jp2|jxl)$", re.IGNORECASE)


@dataclass(frozen=True)
class Truth:
    """`table` has the columns id, label and lesion_id, one row per image.

    `lesions_known` is False where every image had to be taken for a lesion of its own. Labels are codes of
    `classes`.
    """

    table: pd.DataFrame
    lesions_known: bool
    classes: ClassList


def read_truth(path: Path, classes: ClassList) -> Truth:
    """Labels from a CSV: a column `label`, or the official one-hot columns; `lesion_id` where there is one.

    Raises
    ------
    DataError : no labels, an unknown class, an image without exactly one class.
    """
    table = read_table(path, classes, label_synonyms=True)
    labels = class_labels(table, path.name, classes)
    if labels is None:
        table = table.rename(columns=dict(zip(probability_columns(classes), classes.codes, strict=True)))
        if any(name not in table.columns for name in classes.codes):
            raise DataError(
                f"{path.name} has no labels",
                "Give a column `label`, or the columns " + ", ".join(classes.codes),
            )
        one_hot = share_columns(table, classes.codes, path.name) > 0.5
        unclear = table["id"][one_hot.sum(axis=1) != 1]
        if len(unclear):
            raise DataError(f"{path.name} does not give exactly one class for {name_items(unclear)}")
        labels = pd.Series(np.array(classes.codes, dtype=object)[one_hot.argmax(axis=1)], index=table.index)
    return truth_of(table["id"], labels, table.get("lesion_id"), classes)


def find_truth(file: Path | None, manifest: Path, classes: ClassList) -> Truth | None:
    """The truth of `file`, in the classes of this list; without one, of the manifest, in those of its own.

    None where there is neither.
    """
    if file is not None:
        return read_truth(file, classes)
    if not manifest.exists():
        return None
    stored = Manifest.load(manifest)
    return Truth(stored.table[["id", "label", "lesion_id"]], lesions_known=True, classes=stored.classes)


def truth_of(ids: pd.Series, labels: pd.Series, lesions: pd.Series | None, classes: ClassList) -> Truth:
    """Truth from columns of one table; an image without a lesion is a lesion of its own."""
    known = lesions is not None and bool((lesions != "").all())
    own = ids if lesions is None else lesions.where(lesions != "", "image:" + ids)
    return Truth(pd.DataFrame({"id": ids, "label": labels, "lesion_id": own}), known, classes)


def bare_id(identity: str) -> str:
    """An id without its folders and the suffix of an image file: `a\\b\\ISIC_1.jpg` is `ISIC_1`."""
    return _SUFFIX.sub("", PureWindowsPath(identity).name)


def truth_by_id(ids: pd.Series, truth: Truth, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The truth of each id, in their order, and notes."""
    known, notes = truth.table.set_index("id", drop=False), []
    if not ids.isin(known.index).all():
        bare, bare_known = ids.map(bare_id), known["id"].map(bare_id)
        for whose, values in (("the predictions", bare), ("the truth", bare_known)):
            repeated = values[values.duplicated()]
            if len(repeated):
                raise DataError(
                    f"ids of {name} do not match those of the truth, and without folders and suffixes "
                    f"{whose} "
                    f"name an image more than once: {name_items(sorted(set(repeated)))}",
                    "Give both tables the same ids.",
                )
        n_exact = int(ids.isin(known.index).sum())
        known = known.set_index(pd.Index(bare_known.to_numpy(), name="bare"))
        unknown_ids = ids[~bare.isin(known.index)]
        if len(unknown_ids):
            raise DataError(
                f"{name} predicts {len(unknown_ids):,} images without a known class: "
                f"{name_items(unknown_ids)}",
                "Add them to the truth, or remove them from the predictions.",
            )
        notes.append(f"{len(ids) - n_exact:,} ids were matched without their folder and suffix")
        ids = bare
    rows = known.loc[ids, ["id", "lesion_id", "label"]].reset_index(drop=True).assign(fold="")
    if len(rows) < len(truth.table):
        notes.append(
            f"{len(truth.table) - len(rows):,} images of the truth have no prediction and are not judged"
        )
    return rows, notes
