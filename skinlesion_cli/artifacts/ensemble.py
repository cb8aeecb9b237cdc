"""An ensemble: which networks, with which weights, and what each was worth on the same validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import AfterValidator, Field, JsonValue, model_validator

from skinlesion_cli.artifacts.base import Body, Content, OpenBody, StoredArtifact, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.schema import (
    MOST_MEMBERS,
    ClassNames,
    Count,
    FileName,
    Sha256,
    Share,
    Text,
    ViewNames,
)
from skinlesion_cli.decisions.ensemble import METHODS, combine
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.taxonomy.class_list import ClassList

_WEIGHT_TOLERANCE = 1e-6


def _known_method(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"known methods are {', '.join(METHODS)}")
    return method


class MemberBody(Body):
    """One network; see `Member`."""

    name: FileName
    checkpoint_sha256: Sha256 | None
    weight: Share
    validation_bacc: Share | None
    member_group: Text = ""
    single_view_bacc: Share | None = None


class EnsembleFigures(OpenBody):
    """What the ensemble was worth on the validation images; others are kept beside them."""

    images: Count = 0
    lesions: Count = 0
    validation_bacc: Share | None = None
    cross_fitted_bacc: Share | None = None
    classes_without_images: ClassNames = ()


class EnsembleBody(Body):
    """Members, how they are combined, and on which test-time views."""

    members: Annotated[tuple[MemberBody, ...], Field(min_length=1, max_length=MOST_MEMBERS)]
    method: Annotated[str, AfterValidator(_known_method)]
    views: ViewNames
    figures: EnsembleFigures
    # Was used by a method that is no longer supported.
    parameters: Annotated[dict[str, JsonValue], Field(max_length=0)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        total = sum(member.weight for member in self.members)
        if abs(total - 1.0) > _WEIGHT_TOLERANCE:
            raise ValueError(f"the weights of the members sum to {total}, not to 1")
        return self


@dataclass(frozen=True)
class Member:
    """One network. `checkpoint_sha256` is None for predictions that came from elsewhere (a CSV).

    Members of one `member_group` (the folds of a network) always predict together; empty: a group of its own.
    `validation_bacc` is that of the mean over the ensemble's views, `single_view_bacc` that of the image as
    it is, which the method `bacc` weights by; None where it was not measured.
    """

    name: str
    checkpoint_sha256: str | None
    weight: float
    validation_bacc: float | None
    member_group: str = ""
    single_view_bacc: float | None = None


@dataclass(frozen=True)
class Ensemble(StoredArtifact):
    """Members in the order of their weights.

    `views` are the TTA views behind the validation predictions.
    """

    KIND: ClassVar[str] = "ensemble"
    HINT: ClassVar[str] = "Run `skinlesion ensemble` first."

    members: tuple[Member, ...]
    method: str
    views: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    classes: ClassList = field(kw_only=True)
    artifact: Artifact | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.members:
            raise ArtifactError("an ensemble without members")

    @property
    def member_groups(self) -> tuple[tuple[int, ...], ...]:
        """Indexes of the members of each group."""
        groups: dict[str, list[int]] = {}
        for index, member in enumerate(self.members):
            groups.setdefault(member.member_group or member.name, []).append(index)
        return tuple(map(tuple, groups.values()))

    @property
    def group_weights(self) -> tuple[float, ...]:
        """Of each member group, summing to 1."""
        return tuple(float(self.weights[list(indexes)].sum()) for indexes in self.member_groups)

    @property
    def weights(self) -> np.ndarray:
        """float64 (n_members,), summing to 1."""
        return np.array([member.weight for member in self.members], dtype=np.float64)

    def merge(self, probabilities: np.ndarray) -> np.ndarray:
        """The weighted mean of the members' probabilities, (n_members, n, n_classes), as
        float32 (n, n_classes).
        """
        return combine(probabilities, self.weights)

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        if artifact.body.get("method") == "rank":
            raise ArtifactError(
                f"{artifact.path.name}: ensembles combined by rank are no longer supported, since ranks "
                "are not "
                "probabilities and such an ensemble could not predict new images",
                "Combine the networks again: `skinlesion ensemble --method bacc`.",
            )
        body = parsed(EnsembleBody, artifact)
        return cls(
            members=tuple(Member(**member.model_dump()) for member in body.members),
            method=body.method,
            views=body.views,
            figures=body.figures.model_dump(exclude_unset=True),
            classes=artifact.classes,
            artifact=artifact,
        )

    def _content(self) -> Content:
        return Content(
            {
                "members": [asdict(member) for member in self.members],
                "method": self.method,
                "views": list(self.views),
                "figures": dict(self.figures),
            },
            classes=self.classes,
        )
