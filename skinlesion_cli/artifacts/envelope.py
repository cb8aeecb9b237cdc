"""The one envelope that every artifact on disk has, written atomically and verified when read.

An artifact is a JSON file, the envelope, and the payload files that it names. A payload's name carries the
start of its own hash (`weights-1f0c2a9b.safetensors`), so a new version never overwrites the old one: the
artifact changes in the single step in which the envelope is replaced. The hash of the envelope covers the
hashes of the payloads, so it names the whole artifact.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skinlesion_cli import __version__
from skinlesion_cli.artifacts.files import atomic_write, remove_unfinished, sha256_bytes, sha256_file
from skinlesion_cli.artifacts.reading import read_regular, sha256_regular
from skinlesion_cli.artifacts.schema import FileName, Sha256, Text
from skinlesion_cli.config.schema import canonical_json
from skinlesion_cli.errors import ArtifactError, SkinLesionError
from skinlesion_cli.taxonomy.class_list import ClassList
from skinlesion_cli.taxonomy.shipped import shipped

FORMAT = "skinlesion-artifact"
RUN_AGAIN = "Run the stage that wrote it again."
# The list of artifacts whose envelope holds none: those of earlier versions, which knew no other.
UNSTATED_CLASSES = "isic2018"
_LIBRARIES = ("numpy", "pandas", "pillow", "scikit-learn", "timm", "torch")
MOST_ENVELOPE_BYTES = 64 << 20
MOST_PAYLOAD_BYTES = 16 << 30
# Formats that can run code when they are opened; they are refused by name, before anything is read.
_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".pth", ".pt", ".ckpt", ".bin"})


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Payload(_Strict):
    # A plain name: nothing that could lead out of the folder.
    file: FileName
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, le=MOST_PAYLOAD_BYTES)]


class _Envelope(_Strict):
    format: str
    kind: Text
    schema_version: Annotated[int, Field(ge=1)]
    made_with: dict[Text, Text]
    class_order: list[Text]
    classes: dict[str, Any] | None = None
    config_sha256: Sha256 | None
    inputs: dict[Text, Text]
    preprocessing: dict[str, Any] | None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None
    payloads: Annotated[dict[Text, _Payload], Field(max_length=20)]
    body: dict[str, Any]
    sha256: Sha256


@dataclass(frozen=True)
class Artifact:
    """A verified artifact on disk.

    `payloads` maps each payload's role (such as `weights`) to its file; `sha256` names the whole artifact.
    `classes` is the class list that its content is about.
    """

    path: Path
    kind: str
    sha256: str
    body: dict[str, Any]
    payloads: dict[str, Path]
    inputs: dict[str, str]
    config_sha256: str | None
    preprocessing: dict[str, Any] | None
    seed: int | None
    made_with: dict[str, str] = field(default_factory=dict)
    classes: ClassList = field(default_factory=lambda: shipped(UNSTATED_CLASSES))

    def payload(self, role: str) -> bytes:
        """The content of one payload.

        Raises
        ------
        ArtifactError : there is none of this role, or it cannot be read.
        """
        if role not in self.payloads:
            raise ArtifactError(f"{self.path.name} names no payload {role!r}", RUN_AGAIN)
        return read_regular(self.payloads[role], MOST_PAYLOAD_BYTES)

    def input_sha256(self, role: str) -> str:
        """Hash of the artifact that this one was made from.

        Raises
        ------
        ArtifactError : it does not say.
        """
        if role not in self.inputs:
            raise ArtifactError(f"{self.path.name} does not say which {role} it was made from", RUN_AGAIN)
        return self.inputs[role]

    def require_input(self, role: str, expected: Artifact) -> None:
        """Refuse this artifact unless it was made from exactly `expected`."""
        stated = self.inputs.get(role)
        if stated != expected.sha256:
            raise ArtifactError(
                f"{self.path.name} was made from {role} {_short(stated)}, "
                f"but the present {role} is {_short(expected.sha256)}",
                f"Run the stage that writes {self.kind} again, or restore the {role} that it was made from.",
            )


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "(none)"


def made_with() -> dict[str, str]:
    """Versions of this tool and of the libraries that the numbers depend on."""
    versions = {"skinlesion": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_artifact(
    path: Path,
    *,
    kind: str,
    schema_version: int,
    body: Mapping[str, Any],
    payloads: Mapping[str, tuple[str, bytes]] | None = None,
    inputs: Mapping[str, Artifact | str] | None = None,
    config_sha256: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    seed: int | None = None,
    classes: ClassList | None = None,
) -> Artifact:
    """Write an artifact; the previous version is kept until the last step.

    Parameters
    ----------
    path : the envelope's file, ending in `.json`.
    body : the content in JSON types; NaN is refused (write None for undefined).
    payloads : role -> (suffix such as `.csv`, content).
    inputs : role -> the artifact (or its sha256) that this one was made from.
    classes : the class list that it is about; None: that of its inputs.
    """
    listed = classes or _classes_of(inputs or {})
    records: dict[str, dict[str, Any]] = {}
    for role, (suffix, data) in (payloads or {}).items():
        digest = sha256_bytes(data)
        name = f"{path.stem}.{role}-{digest[:12]}{suffix}"
        target = path.with_name(name)
        if not (target.is_file() and sha256_file(target) == digest):
            atomic_write(target, data)
        records[role] = {"file": name, "sha256": digest, "bytes": len(data)}
    envelope = {
        "format": FORMAT,
        "kind": kind,
        "schema_version": schema_version,
        "made_with": made_with(),
        "class_order": list(listed.codes),
        "config_sha256": config_sha256,
        "inputs": {
            role: source if isinstance(source, str) else source.sha256
            for role, source in (inputs or {}).items()
        },
        "preprocessing": dict(preprocessing) if preprocessing is not None else None,
        "seed": seed,
        "payloads": records,
        "body": dict(body),
    }
    if listed != shipped(UNSTATED_CLASSES):
        envelope["classes"] = listed.to_dict()
    digest = sha256_bytes(canonical_json(envelope))
    text = json.dumps(envelope | {"sha256": digest}, indent=1, sort_keys=True, allow_nan=False)
    atomic_write(path, (text + "\n").encode())
    _remove_superseded(path, {record["file"] for record in records.values()})
    return read_artifact(path, kind=kind, schema_version=schema_version, verify_payloads=False)


def _classes_of(inputs: Mapping[str, Artifact | str]) -> ClassList:
    lists = [source.classes for source in inputs.values() if isinstance(source, Artifact)]
    return lists[0] if lists else shipped(UNSTATED_CLASSES)


def _remove_superseded(path: Path, current: set[str]) -> None:
    for role_file in path.parent.glob(f"{path.stem}.*-*"):
        is_payload = len(role_file.name.removesuffix(role_file.suffix).rpartition("-")[2]) == 12
        if is_payload and role_file.name not in current:
            # Windows keeps a file that another program has open; the next write removes it.
            with suppress(PermissionError):
                role_file.unlink(missing_ok=True)
    remove_unfinished(path.parent, path.stem)


def read_artifact(
    path: Path, *, kind: str, schema_version: int, verify_payloads: bool = True, hint: str = ""
) -> Artifact:
    """Read an artifact and verify all that can be verified.

    Raises
    ------
    ArtifactError : it is missing, not of this kind, of a newer schema, truncated, altered, has another class
        order than its class list, or a payload is missing or altered. Nothing in it is ever executed.
    """
    content, envelope = _read_envelope(path, hint)
    _require(path, "kind", envelope.kind, kind)
    if envelope.schema_version > schema_version:
        raise ArtifactError(
            f"{path.name} has schema version {envelope.schema_version}, "
            f"but this version reads up to {schema_version}",
            "Update skinlesion, or run the stage again with this version.",
        )
    classes = _stated_classes(path, envelope)
    del content["sha256"]
    try:
        actual = sha256_bytes(canonical_json(content))
    except ValueError as error:
        raise ArtifactError(
            f"{path.name} holds a value that is not a finite number: {error}", RUN_AGAIN
        ) from None
    if envelope.sha256 != actual:
        raise ArtifactError(
            f"{path.name} was altered after it was written: it states {_short(envelope.sha256)}, "
            f"its content has {_short(actual)}",
            RUN_AGAIN,
        )
    return Artifact(
        path=path,
        kind=kind,
        sha256=actual,
        body=envelope.body,
        payloads={
            role: _verify_payload(path, record, verify_payloads) for role, record in envelope.payloads.items()
        },
        inputs=envelope.inputs,
        config_sha256=envelope.config_sha256,
        preprocessing=envelope.preprocessing,
        seed=envelope.seed,
        made_with=envelope.made_with,
        classes=classes,
    )


def _stated_classes(path: Path, envelope: _Envelope) -> ClassList:
    if envelope.classes is None:
        classes = shipped(UNSTATED_CLASSES)
    else:
        try:
            classes = ClassList.from_dict(envelope.classes)
        except (SkinLesionError, LookupError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path.name} holds a class list that cannot be read: {error}", RUN_AGAIN
            ) from None
    _require(path, "class order", envelope.class_order, list(classes.codes))
    return classes


def payload_files(path: Path) -> list[Path]:
    """The verified payload files of an artifact of any kind."""
    _, envelope = _read_envelope(path, "")
    return [_verify_payload(path, record, True) for record in envelope.payloads.values()]


def _read_envelope(path: Path, hint: str) -> tuple[dict[str, Any], _Envelope]:
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise ArtifactError(
            f"{path.name} is refused: pickled files can run code when they are opened",
            "Use artifacts that skinlesion wrote (JSON and safetensors).",
        )
    try:
        content = json.loads(read_regular(path, MOST_ENVELOPE_BYTES))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not there", hint) from None
    except (ValueError, RecursionError, OSError) as error:
        raise ArtifactError(f"{path.name} cannot be read: {error}", RUN_AGAIN) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{path.name} is not an artifact of skinlesion", hint)
    try:
        return content, _Envelope.model_validate(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        problem = error.errors()[0]["msg"]
        raise ArtifactError(
            f"{path.name} is not a complete artifact: {where}: {problem}", RUN_AGAIN
        ) from None


def _require(path: Path, what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise ArtifactError(f"{path.name} has {what} {actual}, but {expected} is needed here")


def _verify_payload(path: Path, record: _Payload, verify: bool) -> Path:
    file = path.with_name(record.file)
    try:
        size_bytes = file.lstat().st_size
        if verify and size_bytes != record.bytes and not file.is_symlink():
            raise ArtifactError(
                f"{record.file} is damaged: it has {size_bytes:,} bytes, {path.name} states {record.bytes:,}",
                RUN_AGAIN,
            )
        if verify and (digest := sha256_regular(file, record.bytes)) != record.sha256:
            raise ArtifactError(
                f"{record.file} is damaged: its hash is {_short(digest)}, "
                f"{path.name} states {_short(record.sha256)}",
                RUN_AGAIN,
            )
    except FileNotFoundError:
        raise ArtifactError(f"{path.name} names {record.file}, which is missing", RUN_AGAIN) from None
    except OSError as error:
        raise ArtifactError(f"{record.file} cannot be read: {error}", "Check its permissions.") from None
    return file
