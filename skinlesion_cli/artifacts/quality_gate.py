"""The quality gate on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator
from safetensors.numpy import save

from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, parsed
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.schema import FileName, JsonObject
from skinlesion_cli.artifacts.tensors import load_float32
from skinlesion_cli.decisions.quality_gate import (
    CHECKS,
    LOW_CONTRAST,
    N_QUANTILES,
    ONE_SIDED,
    STATISTICS,
    UNFAMILIAR,
    FeatureModel,
    QualityGate,
)
from skinlesion_cli.errors import ArtifactError

_Vector = Annotated[tuple[float, ...], Field(min_length=1, max_length=len(STATISTICS))]
_Quantiles = Annotated[tuple[float, ...], Field(min_length=N_QUANTILES, max_length=N_QUANTILES)]


class FeatureModelBody(Body):
    """Whose features they are, and the sizes of the tensors in the payload `features`."""

    network: FileName
    n_features: Annotated[int, Field(ge=1, le=100_000)]
    n_components: Annotated[int, Field(ge=1, le=4096)]
    residual_variance: Annotated[float, Field(gt=0.0)]
    feature_scale: Annotated[float, Field(gt=0.0)]
    pixel_scale: Annotated[float, Field(gt=0.0)]


class QualityGateBody(Body):
    """Mean and precision of the statistics `names`, and quantiles and a limit for every check."""

    names: Annotated[tuple[str, ...], Field(max_length=len(STATISTICS))]
    mean: _Vector
    precision: Annotated[tuple[_Vector, ...], Field(max_length=len(STATISTICS))]
    quantiles: dict[str, _Quantiles]
    limits: dict[str, float]
    figures: JsonObject
    features: FeatureModelBody | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        needed = {statistic for statistic, _ in ONE_SIDED.values()}
        if len(set(self.names)) < len(self.names) or not needed <= set(self.names) <= set(STATISTICS):
            raise ValueError(
                f"names must be different ones of {', '.join(STATISTICS)}, with {', '.join(needed)}"
            )
        if {len(self.mean), len(self.precision), *map(len, self.precision)} != {len(self.names)}:
            raise ValueError("names, mean and precision are of different lengths")
        checks = set(CHECKS) if self.features else set(CHECKS) - {UNFAMILIAR}
        for values in (self.quantiles, self.limits):
            # Gates of earlier versions do not look at the contrast.
            if set(values) | {LOW_CONTRAST} != checks or self.quantiles.keys() != self.limits.keys():
                raise ValueError(f"quantiles and limits must be those of {', '.join(sorted(checks))}")
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
            features=None if body.features is None else _feature_model(artifact, body.features),
        )
        return cls(gate, body.figures, artifact)

    def require_network(self, members: Iterable[Checkpoint]) -> None:
        """Refuse a gate that was fitted on the features of a network that has been trained again since.

        Gates of earlier versions do not say which network that was, only its name.

        Raises
        ------
        ArtifactError : naming both.
        """
        features = self.gate.features
        fitted_on = None if self.artifact is None else self.artifact.inputs.get("checkpoint")
        if features is None or fitted_on is None:
            return
        for member in members:
            present = "" if member.artifact is None else member.artifact.sha256
            if member.name == features.network and present != fitted_on:
                raise ArtifactError(
                    f"the quality gate was fitted on features of {member.name} {fitted_on[:12]}, but the "
                    f"model has {present[:12]}",
                    "Run `skinlesion gate` again.",
                )

    def _content(self) -> Content:
        gate, features = self.gate, self.gate.features
        payloads = {}
        if features is not None:
            tensors = {name: getattr(features, name) for name in ("mean", "components", "variances")}
            content = save(
                {name: np.ascontiguousarray(values, np.float32) for name, values in tensors.items()}
            )
            payloads["features"] = (".safetensors", content)
        return Content(
            {
                "names": list(gate.names),
                "mean": gate.mean.tolist(),
                "precision": gate.precision.tolist(),
                "quantiles": {check: values.tolist() for check, values in gate.quantiles.items()},
                "limits": dict(gate.limits),
                "figures": dict(self.figures),
                "features": None
                if features is None
                else {
                    "network": features.network,
                    "n_features": features.components.shape[1],
                    "n_components": features.components.shape[0],
                    "residual_variance": features.residual_variance,
                    "feature_scale": features.feature_scale,
                    "pixel_scale": features.pixel_scale,
                },
            },
            payloads,
        )


def _feature_model(artifact: Artifact, body: FeatureModelBody) -> FeatureModel:
    if "features" not in artifact.payloads:
        raise ArtifactError(f"{artifact.path.name} names no file of features", "Run `skinlesion gate` again.")
    file = artifact.payloads["features"]
    shapes = {
        "mean": (body.n_features,),
        "components": (body.n_components, body.n_features),
        "variances": (body.n_components,),
    }
    tensors = load_float32(file.read_bytes(), shapes, file.name)
    missing = [name for name in shapes if name not in tensors]
    bad = [name for name, values in tensors.items() if not np.isfinite(values).all()]
    if missing or bad or not (tensors["variances"] > 0).all():
        raise ArtifactError(f"{file.name} is damaged: {', '.join(missing or bad or ['variances'])}")
    return FeatureModel(
        body.network,
        tensors["mean"],
        tensors["components"],
        tensors["variances"],
        body.residual_variance,
        body.feature_scale,
        body.pixel_scale,
    )
