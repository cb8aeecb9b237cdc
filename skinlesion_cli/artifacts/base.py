"""What every kind of artifact shares: a schema of its body, and `load` and `save` around one envelope."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from skinlesion_cli.artifacts.envelope import RUN_AGAIN, Artifact, read_artifact, write_artifact
from skinlesion_cli.artifacts.legacy import with_present_names
from skinlesion_cli.artifacts.schema import CLASSES
from skinlesion_cli.config.schema import canonical_json
from skinlesion_cli.errors import ArtifactError, DataError
from skinlesion_cli.taxonomy.class_list import ClassList


class Body(BaseModel):
    """Base of all schemas: no conversion of types, no unknown keys, no NaN, no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class OpenBody(Body):
    """Base of schemas of figures: unknown fields, which nothing reads, are kept."""

    model_config = ConfigDict(extra="allow")


_BodyT = TypeVar("_BodyT", bound=BaseModel)


@dataclass(frozen=True)
class Content:
    """What `save` writes: the body, payloads as role -> (suffix, content), and what the envelope states.

    `classes` None: the class list of the inputs.
    """

    body: Mapping[str, Any]
    payloads: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    config_sha256: str | None = None
    preprocessing: Mapping[str, Any] | None = None
    seed: int | None = None
    classes: ClassList | None = None


class StoredArtifact(ABC):
    """Base of the kinds. A kind says what it writes and how it is made from a verified artifact.

    Attributes
    ----------
    KIND, SCHEMA_VERSION : as stated in the envelope. A newer schema than this is refused.
    HINT : what to do if the artifact is missing.
    artifact : the verified artifact that this was loaded from; None where it was made in memory.
    """

    KIND: ClassVar[str]
    SCHEMA_VERSION: ClassVar[int] = 1
    HINT: ClassVar[str] = ""

    artifact: Artifact | None

    @classmethod
    def load(cls, path: Path, *, hint: str = "") -> Self:
        """Read and verify one from its envelope.

        Parameters
        ----------
        hint : what to do if it is missing; default `HINT`.

        Raises
        ------
        ArtifactError : it is missing, damaged, of another kind or a newer schema, or a value in it is not
            what its schema says; names the field.
        """
        artifact = read_artifact(
            path, kind=cls.KIND, schema_version=cls.SCHEMA_VERSION, hint=hint or cls._missing_hint(path)
        )
        with malformed_as_artifact_error(path):
            return cls._from_artifact(artifact)

    def save(self, path: Path, *, inputs: Mapping[str, Artifact | str] | None = None) -> Artifact:
        """Write it atomically: the previous version is kept until the last step.

        Parameters
        ----------
        inputs : role -> the artifact (or its sha256) that this one was made from.
        """
        content = self._content()
        return write_artifact(
            path,
            kind=self.KIND,
            schema_version=self.SCHEMA_VERSION,
            body=content.body,
            payloads=content.payloads,
            inputs=inputs,
            config_sha256=content.config_sha256,
            preprocessing=content.preprocessing,
            seed=content.seed,
            classes=content.classes,
        )

    @classmethod
    @abstractmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        """Make one from a verified artifact; the body is to be checked by `parsed` first."""

    @abstractmethod
    def _content(self) -> Content:
        """What is written."""

    @classmethod
    def _missing_hint(cls, _path: Path) -> str:
        return cls.HINT


def parsed(schema: type[_BodyT], artifact: Artifact) -> _BodyT:
    """The body of an artifact, checked against its schema; names of earlier versions are accepted.

    Raises
    ------
    ArtifactError : names the first field that violates the schema, and its value.
    """
    body = with_present_names(artifact.kind, artifact.body)
    return checked_values(schema, body, artifact.path.name, artifact.classes)


def checked_values(
    schema: type[_BodyT], stored: Mapping[str, Any], name: str, classes: ClassList | None = None
) -> _BodyT:
    """Values from an artifact, checked against a schema; class codes must be those of `classes`.

    Raises
    ------
    ArtifactError : names the first field that violates the schema, and its value.
    """
    try:
        # By way of JSON: in it, lists may become tuples while types are kept apart strictly.
        return schema.model_validate_json(
            canonical_json(stored), strict=True, context=None if classes is None else {CLASSES: classes}
        )
    except ValidationError as error:
        raise ArtifactError(f"{name}: {_first_problem(error)}", RUN_AGAIN) from None


def _first_problem(error: ValidationError) -> str:
    first, others = error.errors()[0], error.error_count() - 1
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    problem = first["msg"].removeprefix("Value error, ")
    # For a rule between fields, or a missing field, the input is the whole object, which is no help.
    if not isinstance(first["input"], dict):
        value = ascii(first["input"])
        where = f"{where} is {value if len(value) <= 80 else f'{value[:77]}...'}"
    more = f" (and {others} more problems)" if others else ""
    return f"{where}: {problem}{more}"


@contextmanager
def malformed_as_artifact_error(path: Path) -> Iterator[None]:
    """Content of the wrong shape is a damaged artifact, not a fault of the program."""
    try:
        yield
    except DataError as error:
        raise ArtifactError(f"{path.name}: {error.message}", error.hint or RUN_AGAIN) from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, SafetensorError) as error:
        raise ArtifactError(
            f"{path.name} cannot be used: {type(error).__name__} {error}", RUN_AGAIN
        ) from error
