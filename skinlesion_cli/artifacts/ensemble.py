"""An ensemble: which networks, with which weights, and what each was worth on the same validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

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
from skinlesion_cli.decisions.ensemble import METHODS, RANK_QUANTILES, MergeRule
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.taxonomy import N_CLASSES

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


class EnsembleFigures(OpenBody):
    """What the ensemble was worth on the validation images; others may stand beside them."""

    images: Count = 0
    lesions: Count = 0
    validation_bacc: Share | None = None
    cross_fitted_bacc: Share | None = None
    classes_without_images: ClassNames = ()


class EnsembleParameters(Body):
    """What the method `rank` needs: quantiles (n_members, 7, 257) of each member's probabilities."""

    rank_reference: tuple[tuple[tuple[Share, ...], ...], ...] | None = None


class EnsembleBody(Body):
    """Members, how they are combined, and on which test-time views."""

    members: Annotated[tuple[MemberBody, ...], Field(min_length=1, max_length=MOST_MEMBERS)]
    method: Annotated[str, AfterValidator(_known_method)]
    views: ViewNames
    figures: EnsembleFigures
    parameters: EnsembleParameters

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        total = sum(member.weight for member in self.members)
        if abs(total - 1.0) > _WEIGHT_TOLERANCE:
            raise ValueError(f"the weights of the members sum to {total}, not to 1")
        reference = self.parameters.rank_reference
        if reference is not None:
            shapes = {len(reference), *(len(rows) for rows in reference)}
            lengths = {len(row) for rows in reference for row in rows}
            if shapes != {len(self.members), N_CLASSES} or lengths != {RANK_QUANTILES}:
                raise ValueError("rank_reference does not have the shape (n_members, 7, 257)")
        return self


@dataclass(frozen=True)
class Member:
    """One network. `checkpoint_sha256` is None for predictions that came from elsewhere (a CSV).

    Members of one `member_group` (the folds of a network) always predict together; empty: a group of its own.
    """

    name: str
    checkpoint_sha256: str | None
    weight: float
    validation_bacc: float | None
    member_group: str = ""


@dataclass(frozen=True)
class Ensemble(StoredArtifact):
    """Members in the order of their weights.

    `views` are the TTA views behind the validation predictions. `parameters` holds what a method needs beside
    the weights (`stacked`, `rank`).
    """

    KIND: ClassVar[str] = "ensemble"
    HINT: ClassVar[str] = "Run `skinlesion ensemble` first."

    members: tuple[Member, ...]
    method: str
    views: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifact: Artifact | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.members:
            raise ArtifactError("an ensemble without members")

    @property
    def rule(self) -> MergeRule:
        """How the members' probabilities become one."""
        reference = self.parameters.get("rank_reference")
        return MergeRule(
            self.method, self.weights, None if reference is None else np.array(reference, dtype=np.float32)
        )

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

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(EnsembleBody, artifact)
        return cls(
            members=tuple(Member(**member.model_dump()) for member in body.members),
            method=body.method,
            views=body.views,
            figures=body.figures.model_dump(exclude_unset=True),
            parameters=body.parameters.model_dump(exclude_none=True),
            artifact=artifact,
        )

    def _content(self) -> Content:
        return Content(
            {
                "members": [asdict(member) for member in self.members],
                "method": self.method,
                "views": list(self.views),
                "figures": dict(self.figures),
                "parameters": dict(self.parameters),
            }
        )
