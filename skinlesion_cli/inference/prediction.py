"""What is said of one image: one typed value, its row in a table, and the columns of that table.

To add something to every row, add a field to `Prediction`: its column, its kind and its meaning are given
there, and the writers, the readers and the documentation follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from skinlesion_cli.artifacts.prediction_columns import Column, ColumnSet, Kind
from skinlesion_cli.decisions.quality_gate import Verdict
from skinlesion_cli.decisions.triage import Outcome
from skinlesion_cli.errors import ArtifactError, ImageError, one_line
from skinlesion_cli.taxonomy.class_list import ClassList

OK: Final = "ok"
ERROR: Final = "error"
# The note of an image that the model has seen in training.
IN_TRAINING: Final = "in the model's training data"
_SEPARATOR = "|"
# Starts the name of the column of a class's probability, as in `ClassList.column`; no other column has it.
_PROBABILITY = "p_"
_REQUIRED: Any = object()


def _column(
    kind: Kind | Literal["names", "probabilities"],
    meaning: str,
    *,
    default: Any = None,
    older_names: tuple[str, ...] = (),
    added_later: bool = False,
    if_no_names: str = "",
) -> Any:
    """A field with its column. `names` is a tuple of names, joined by `|` in the table,
    `if_no_names` if empty.

    `added_later`: tables of earlier versions do not have it, and are read without.
    """
    about = {
        "kind": kind,
        "meaning": meaning,
        "older_names": older_names,
        "required": not added_later,
        "if_no_names": if_no_names,
    }
    return field(metadata=about) if default is _REQUIRED else field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says of one image, or why the image could not be read.

    Probabilities are calibrated, float32 values between 0 and 1 by class name. Where `error` is set, all else
    but the position, the id and the model is None: no default stands in for a result. None elsewhere means
    that the thing does not apply, such as the quality score of a model without a quality gate.

    The meaning of each field is that of its column; see `table_of`.
    """

    row: int | None = _column("integer", "position of the image in the input, from 1")
    id: str = _column(
        "text",
        "path below the folder that was named, or the file as named; control characters escaped",
        default=_REQUIRED,
    )
    status: Literal["ok", "error"] = _column(
        "text", "`ok`, or `error`: the image could not be read", default=OK
    )
    error: str | None = _column("text", "reason code and message; empty where the status is `ok`")
    probabilities: Mapping[str, float] | None = _column(
        "probabilities", "calibrated probability of {title}, 0 to 1"
    )
    argmax: str | None = _column("text", "class of the highest probability")
    decision: str | None = _column(
        "text", "class of the best balanced accuracy, or by the thresholds of a policy that has some"
    )
    threshold_fired: str | None = _column(
        "text", "class whose threshold overrode the argmax; empty where none did"
    )
    alarm: tuple[str, ...] | None = _column(
        "names",
        "alarms that fired, a class or `malignant`, joined by `|`; empty where none did",
        added_later=True,
    )
    malignant_probability: float | None = _column(
        "float32", "sum of the probabilities of {malignant}, at most 1"
    )
    conformal_set: tuple[str, ...] | None = _column(
        "names", "classes that stay plausible, joined by `|`; empty without conformal sets"
    )
    triage: str | None = _column("text", "`refer`, `review` or `routine`")
    triage_reason: str | None = _column(
        "text",
        "why it has this level, in words, such as `melanoma alarm 0.31 > 0.18`",
        added_later=True,
    )
    quality: tuple[str, ...] | None = _column(
        "names",
        "checks of the quality gate that the image failed, joined by `|`; `ok`; empty where none was fitted",
        if_no_names=OK,
    )
    quality_score: float | None = _column(
        "float32", "worst check, 0 to 1: share of good training images that look worse"
    )
    flagged: bool | None = _column(
        "flag",
        "the image failed a check of the quality gate and is flagged for `review`",
        older_names=("doubtful",),
    )
    notes: tuple[str, ...] | None = _column(
        "names",
        "what was done or assumed when the image was read (colours converted, first frame of an animation), "
        f"and `{IN_TRAINING}`, joined by `|`; empty for an ordinary image",
        added_later=True,
    )
    forward_passes: int | None = _column(
        "integer",
        "forward passes that were averaged, each one network at one test-time view",
        older_names=("passes",),
    )
    tta: str | None = _column(
        "text", "mode of test-time augmentation; `(forced)` where it is not the calibrated one"
    )
    overlay: str | None = _column(
        "text", "overlay of the decided class, below the folder of overlays; empty without --cam"
    )
    overlay_magnitude: float | None = _column(
        "float32", "maximum of that map before it was scaled, in logits; 0: all zero"
    )
    overlay_outside_lesion: float | None = _column(
        "float32",
        "share of that map, 0 to 1, outside the dark region in the middle that is likely the lesion; empty "
        "where no such region is clear, or the map is all zero",
        added_later=True,
    )
    overlay_at_border: float | None = _column(
        "float32",
        "share of that map, 0 to 1, in the outer tenth of the image; empty where the map is all zero",
        added_later=True,
    )
    lesion: str | None = _column(
        "text", "with --group: the lesion that the image shows, where it is known", added_later=True
    )
    similar: Mapping[str, Any] | None = _column(
        "json",
        "with --similar: `labels` of the `nearest` labelled lesions, and `cases`, the first of them: label, "
        "lesion id and image where they are known, distance",
        added_later=True,
    )
    patient_data: tuple[str, ...] | None = _column(
        "names",
        "what was known of the patient and used: `age`, `sex`, `site`, or `none`; empty where the model "
        "takes the image alone",
        added_later=True,
        if_no_names="none",
    )
    model: str | None = _column("text", "the ensemble's members")
    model_sha256: str | None = _column(
        "text", "hash of the networks, the ensemble and the calibration together"
    )

    def __post_init__(self) -> None:
        if self.status not in (OK, ERROR):
            raise ValueError(f"status {self.status!r} is neither {OK!r} nor {ERROR!r}")
        if (self.status == ERROR) != (self.error is not None):
            raise ValueError(f"status {self.status!r} does not go with error {self.error!r}")

    @property
    def source(self) -> str:
        """The image as it was named: the id."""
        return self.id

    @property
    def in_training(self) -> bool:
        """Whether the image is one that the model has seen in training."""
        return IN_TRAINING in (self.notes or ())

    @classmethod
    def failed(cls, id: str, error: ImageError, **origin: Any) -> Prediction:
        """Of an image that could not be read; `origin` are the fields that say what was to predict it."""
        text = one_line(f"{error.reason}: {error.message}")
        return cls(id=id, status=ERROR, error=text, **origin)

    @classmethod
    def decided(
        cls,
        id: str,
        outcome: Outcome,
        index: int,
        classes: ClassList,
        *,
        forward_passes: int,
        quality: Verdict | None,
        **origin: Any,
    ) -> Prediction:
        """Of the image at `index` of an outcome over `classes`; `quality` is the quality gate's verdict,
        None without a gate.
        """
        decisions, codes = outcome.decisions, classes.codes
        fired = int(decisions.fired[index])
        sets = outcome.conformal_sets
        return cls(
            id=id,
            probabilities=dict(zip(codes, map(float, outcome.probabilities[index]), strict=True)),
            argmax=codes[decisions.argmax[index]],
            decision=codes[decisions.decided[index]],
            threshold_fired=codes[fired] if fired >= 0 else None,
            alarm=outcome.fired_alarms(index) or None,
            malignant_probability=None
            if outcome.malignant_probability is None
            else float(outcome.malignant_probability[index]),
            conformal_set=None
            if sets is None
            else tuple(name for name, held in zip(codes, sets[index], strict=True) if held),
            triage=None if outcome.triage is None else str(outcome.triage[index]),
            triage_reason=outcome.reasons[index] or None if outcome.reasons else None,
            quality=None if quality is None else quality.failed,
            quality_score=None if quality is None else quality.score,
            flagged=None if quality is None else quality.flagged,
            forward_passes=forward_passes,
            **origin,
        )

    def to_row(self, codes: Sequence[str]) -> dict[str, Any]:
        """As cells by column name: empty text, or None in columns that are not text, where nothing applies.

        `codes` are the classes of the model, which an image that could not be read does not name.
        """
        row: dict[str, Any] = {}
        for column in _FIELDS:
            value, kind = getattr(self, column.name), column.metadata["kind"]
            if kind == "probabilities":
                row |= {_PROBABILITY + code: None if value is None else value[code] for code in codes}
            elif kind == "names":
                # A note quotes what a file says, which is not to become a note of its own.
                names = [name.replace(_SEPARATOR, "/") for name in value or ()]
                joined = _SEPARATOR.join(names) or column.metadata["if_no_names"]
                row[column.name] = "" if value is None else joined
            else:
                row[column.name] = "" if kind == "text" and value is None else value
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """From cells as `to_row` gives them. (An empty conformal set reads as None: both are empty cells.)

        Raises
        ------
        ArtifactError : the cells do not make a prediction.
        """
        values: dict[str, Any] = {}
        for column in _FIELDS:
            kind = column.metadata["kind"]
            if kind == "probabilities":
                each = {code: row[_PROBABILITY + code] for code in codes_of(row)}
                values[column.name] = None if any(p is None for p in each.values()) else each
            elif kind == "names":
                cell = row[column.name]
                none = () if cell and cell == column.metadata["if_no_names"] else None
                values[column.name] = tuple(cell.split(_SEPARATOR)) if cell and none is None else none
            else:
                cell = row[column.name]
                values[column.name] = None if kind == "text" and cell == "" else cell
        try:
            return cls(**values)
        except ValueError as error:
            raise ArtifactError(f"row {row['row']} is not a prediction: {error}") from None


_FIELDS = fields(Prediction)


def is_in_training(notes: str) -> bool:
    """Whether a cell of the column `notes` says that the model has seen the image in training."""
    return IN_TRAINING in notes.split(_SEPARATOR)


def codes_of(columns: Iterable[str]) -> tuple[str, ...]:
    """The classes that columns of a table of predictions are about, in their order."""
    return tuple(name[len(_PROBABILITY) :] for name in columns if name.startswith(_PROBABILITY))


def _columns_of(about: Any, titles: Mapping[str, str], malignant: str) -> list[Column]:
    more = {"older_names": about.metadata["older_names"], "required": about.metadata["required"]}
    kind, meaning = about.metadata["kind"], about.metadata["meaning"]
    if kind == "probabilities":
        return [
            Column(_PROBABILITY + code, "float32", meaning.format(title=title), **more)
            for code, title in titles.items()
        ]
    meaning = meaning.replace("{malignant}", malignant)
    return [Column(about.name, "text" if kind == "names" else kind, meaning, **more)]


def table_of(classes: ClassList) -> ColumnSet:
    """The table of predictions of a model that distinguishes these classes."""
    malignant = " and ".join(
        filter(None, [", ".join(classes.malignant_codes[:-1]), *classes.malignant_codes[-1:]])
    )
    return _table({code: classes.titles[code] for code in classes.codes}, malignant or "no class")


def table_with(columns: Iterable[str]) -> ColumnSet:
    """The table of predictions that has these columns, of whatever classes."""
    return _table({code: code for code in codes_of(columns)}, "the malignant classes")


def _table(titles: Mapping[str, str], malignant: str) -> ColumnSet:
    return ColumnSet(tuple(column for about in _FIELDS for column in _columns_of(about, titles, malignant)))
