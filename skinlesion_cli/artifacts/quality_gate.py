"""The quality gate on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.schema import JsonObject
from skinlesion_cli.decisions.quality_gate import CHECKS, N_QUANTILES, ONE_SIDED, STATISTICS, QualityGate

_Vector = Annotated[tuple[float, ...], Field(min_length=1, max_length=len(STATISTICS))]
_Quantiles = Annotated[tuple[float, ...], Field(min_length=N_QUANTILES, max_length=N_QUANTILES)]


class QualityGateBody(Body):
    """Mean and precision of the statistics `names`, and quantiles and a limit for every check."""

    names: Annotated[tuple[str, ...], Field(max_length=len(STATISTICS))]
    mean: _Vector
    precision: Annotated[tuple[_Vector, ...], Field(max_length=len(STATISTICS))]
    quantiles: dict[str, _Quantiles]
    limits: dict[str, float]
    figures: JsonObject

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        needed = {statistic for statistic, _ in ONE_SIDED.values()}
        if len(set(self.names)) < len(self.names) or not needed <= set(self.names) <= set(STATISTICS):
            raise ValueError(
                f"names must be different ones of {', '.join(STATISTICS)}, with {', '.join(needed)}"
            )
        if {len(self.mean), len(self.precision), *map(len, self.precision)} != {len(self.names)}:
            raise ValueError("names, mean and precision are of different lengths")
        for values in (self.quantiles, self.limits):
            if set(values) != set(CHECKS):
                raise ValueError(f"quantiles and limits must be those of {', '.join(CHECKS)}")
        if any(list(values) != sorted(values) for values in self.quantiles.values()):
            raise ValueError("quantiles must ascend")
        return self


@dataclass(frozen=True)
class StoredQualityGate(StoredArtifact):
    """`figures` holds the measured false alarm rate, with its support and interval."""

    KIND: ClassVar[str] = "gate"
    HINT: ClassVar[str] = "Run `skinlesion gate` first."

    gate: QualityGate
    figures: Mapping[str, Any]
    artifact: Artifact | None = field(default=None, compare=False)

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(QualityGateBody, artifact)
        gate = QualityGate(
            names=body.names,
            mean=np.array(body.mean),
            precision=np.array(body.precision),
            quantiles={check: np.array(values) for check, values in body.quantiles.items()},
            limits=body.limits,
        )
        return cls(gate, body.figures, artifact)

    def _content(self) -> Content:
        gate = self.gate
        return Content(
            {
                "names": list(gate.names),
                "mean": gate.mean.tolist(),
                "precision": gate.precision.tolist(),
                "quantiles": {check: values.tolist() for check, values in gate.quantiles.items()},
                "limits": dict(gate.limits),
                "figures": dict(self.figures),
            }
        )
