"""One verdict per lesion, from the predictions of its photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from skinlesion_cli.artifacts.prediction_columns import Column, ColumnSet
from skinlesion_cli.decisions.levels import REFER, REVIEW, ROUTINE
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.inference.prediction import ERROR, Prediction
from skinlesion_cli.taxonomy.class_list import ClassList

_MEAN: Final = (
    "Lesions: probabilities are the mean over the photographs of a lesion, and the class is decided on that "
    "mean"
)
# Why the worst: a sign that one photograph shows is not undone by another that misses it.
_WORST: Final = (
    "; triage level and alarms are the worst of any photograph, because a sign that one photograph shows "
    "is not undone by another; a photograph that cannot be read keeps its lesion from routine. The "
    "calibration was fitted on photographs. An alarm of a lesion fires wherever those of more than half of "
    "its photographs do, so a sensitivity that is guaranteed per lesion holds, with more false alarms; what "
    "is guaranteed of the shares in refer and routine does not carry over to lesions."
)


def group_rule(classes: ClassList) -> str:
    """How photographs of one lesion become one verdict, in words."""
    return _MEAN + (_WORST if classes.has_malignant else ".")


_WORST_FIRST: Final = (REFER, REVIEW, ROUTINE)

# What a table of lesions begins with, whatever its classes.
LESION_COLUMNS: Final = ("lesion", "images", "failed")


def lesion_table(classes: ClassList) -> ColumnSet:
    """The table of lesions of a model that distinguishes these classes."""
    return ColumnSet(
        (
            Column("lesion", "text", "the lesion, as in the column `lesion` of the predictions"),
            Column("images", "integer", "photographs that were predicted"),
            Column("failed", "integer", "photographs that could not be read"),
            *(
                Column(classes.column(code), "float32", f"mean probability of {classes.titles[code]}, 0 to 1")
                for code in classes.codes
            ),
            Column("decision", "text", "class decided on the mean probabilities"),
            Column("malignant_probability", "float32", "mean malignant probability"),
            Column("alarm", "text", "alarms that fired for any photograph, joined by `|`"),
            Column("triage", "text", "worst level of any photograph; empty where none could be read"),
            Column("triage_reason", "text", "the photograph that it comes from, and its reason"),
            Column("flagged", "integer", "photographs that the quality gate flagged"),
        )
    )


@dataclass(frozen=True)
class LesionVerdict:
    """What the photographs of a lesion say together; see `lesion_table`. Without a readable photograph,
    probabilities, decision and triage are None; triage and malignant probability also where no class is
    malignant."""

    lesion: str
    images: int
    failed: int
    probabilities: Mapping[str, float] | None
    decision: str | None
    malignant_probability: float | None
    alarm: tuple[str, ...]
    triage: str | None
    triage_reason: str
    flagged: int

    @property
    def words(self) -> str:
        """In one line."""
        number = self.images + self.failed
        photographs = f"{number} photograph{'' if number == 1 else 's'}"
        if self.decision is None:
            return f"{photographs}, none could be read"
        unread = f" ({self.failed} not readable)" if self.failed else ""
        if self.triage is None or self.malignant_probability is None:
            return f"lesion {self.decision}, {photographs}{unread}"
        return (
            f"lesion {self.triage}, {self.decision}, malignant {self.malignant_probability:.2f}, "
            f"{photographs}{unread}"
        )

    def to_row(self, classes: ClassList) -> dict[str, Any]:
        """As cells by column name."""
        p = self.probabilities
        return {
            "lesion": self.lesion,
            "images": self.images,
            "failed": self.failed,
            **{classes.column(code): None if p is None else p[code] for code in classes.codes},
            "decision": self.decision or "",
            "malignant_probability": self.malignant_probability,
            "alarm": "|".join(self.alarm),
            "triage": self.triage or "",
            "triage_reason": self.triage_reason,
            "flagged": self.flagged,
        }


def lesion_severity(verdict: LesionVerdict) -> tuple[int, float, str]:
    """Sorts the most urgent first; lesions without a readable photograph come before routine ones."""
    if verdict.triage is None or verdict.malignant_probability is None:
        return 2, 0.0, verdict.lesion
    order = {REFER: 0, REVIEW: 1, ROUTINE: 3}
    return order[verdict.triage], -verdict.malignant_probability, verdict.lesion


class _Photographs:
    """What is kept of the photographs of one lesion: little, however many there are."""

    def __init__(self, codes: Sequence[str]) -> None:
        self.codes = codes
        self.images = self.failed = self.flagged = self.with_metadata = 0
        self.total = np.zeros(len(codes))
        self.alarms: set[str] = set()
        self.worst: tuple[int, float, Prediction] | None = None

    def add(self, prediction: Prediction) -> None:
        if prediction.status == ERROR or prediction.probabilities is None:
            self.failed += 1
            return
        self.images += 1
        self.total += [prediction.probabilities[code] for code in self.codes]
        self.alarms.update(prediction.alarm or ())
        self.flagged += bool(prediction.flagged)
        self.with_metadata += bool(prediction.patient_data)
        # Without triage, where no class is malignant, the first photograph stands for all.
        level = 0 if prediction.triage is None else _WORST_FIRST.index(prediction.triage)
        rank = (level, -(prediction.malignant_probability or 0.0))
        if self.worst is None or rank < self.worst[:2]:
            self.worst = (*rank, prediction)


class LesionTally:
    """Collects predictions by their lesion; `rule` decides on the mean probabilities, `metadata_rule` where
    all of them were made with patient metadata (None: the model has no other rule).
    """

    def __init__(
        self, classes: ClassList, rule: DecisionRule, metadata_rule: DecisionRule | None = None
    ) -> None:
        self.classes, self.rule, self.metadata_rule = classes, rule, metadata_rule
        self._photographs: dict[str, _Photographs] = {}

    def add(self, prediction: Prediction) -> None:
        """Add one photograph; those without a lesion are lesions of their own."""
        name = prediction.lesion or prediction.id
        self._photographs.setdefault(name, _Photographs(self.classes.codes)).add(prediction)

    def verdicts(self) -> list[LesionVerdict]:
        """One per lesion, in the order in which they came first."""
        return [self._verdict(name, photographs) for name, photographs in self._photographs.items()]

    def _verdict(self, name: str, these: _Photographs) -> LesionVerdict:
        unread = f"{these.failed} of {these.images + these.failed} photographs could not be read"
        if these.worst is None:
            return LesionVerdict(name, 0, these.failed, None, None, None, (), None, unread, 0)
        mean = (these.total / these.images).astype(np.float32)
        rule = self.rule
        if self.metadata_rule is not None and these.with_metadata == these.images:
            rule = self.metadata_rule
        decided = decide(mean[None], rule.thresholds, self.classes, rule.priority, rule.class_offsets).decided
        probabilities = dict(zip(self.classes.codes, map(float, mean), strict=True))
        worst = these.worst[2]
        level, reason = worst.triage, ""
        if level is not None:
            reason = f"{worst.id}: {worst.triage_reason or level}"
        if level == ROUTINE and these.failed:
            level, reason = REVIEW, unread
        elif these.failed:
            reason = "; ".join(filter(None, (reason, unread)))
        return LesionVerdict(
            lesion=name,
            images=these.images,
            failed=these.failed,
            probabilities=probabilities,
            decision=self.classes.codes[int(decided[0])],
            malignant_probability=min(sum(probabilities[code] for code in self.classes.malignant_codes), 1.0)
            if self.classes.has_malignant
            else None,
            alarm=tuple(sorted(these.alarms)),
            triage=level,
            triage_reason=reason,
            flagged=these.flagged,
        )
