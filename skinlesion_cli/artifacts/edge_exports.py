"""A network for phones and other small devices, with what a program on the device has to know.

The network lies in `models/NAME/edge/` under a plain name, since the tools of each format expect one. This
artifact lies beside it; its envelope names the order of the classes and the preprocessing. skinlesion itself
does not predict with these files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, checked_values, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.files import sha256_file
from skinlesion_cli.artifacts.schema import JsonObject, Text
from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.errors import ArtifactError

SUFFIXES = {"openvino": ".xml", "coreml": ".mlpackage", "litert": ".tflite", "executorch": ".pte"}
# What every one of these files takes and gives, in the words of the artifact.
INPUT = "float32 (1, 3, input_size_px, input_size_px): RGB pixels / 255, resized as `preprocessing` says"
OUTPUT = "float32 (1, 7): logits in the order of `class_order`, not calibrated"


def install_hint(kind: str) -> str:
    """What to do where a package for this format is missing."""
    return f"Run `pip install 'skinlesion[edge-{kind}]'`."


class EdgeExportBody(Body):
    """The format, the SHA-256 of every file of the network, its input and output, and what was measured.

    `figures` holds the comparison with torch; it is empty where the format cannot run on the machine that
    wrote it.
    """

    format: Text
    files: Annotated[dict[Text, Text], Field(min_length=1, max_length=1000)]
    input: Text
    output: Text
    figures: JsonObject


@dataclass(frozen=True)
class EdgeExport(StoredArtifact):
    """`files` are relative to the artifact's folder, with the SHA-256 of each."""

    KIND: ClassVar[str] = "edge-export"

    format: str
    files: Mapping[str, str]
    figures: Mapping[str, Any]
    preprocessing: Preprocessing
    artifact: Artifact | None = field(default=None, compare=False)

    @classmethod
    def of_files(
        cls, kind: str, model: Path, figures: Mapping[str, Any], preprocessing: Preprocessing
    ) -> Self:
        """Of the network `model`, which may be a folder, and the weights that OpenVINO puts beside it."""
        weights = [model.with_suffix(".bin")] if kind == "openvino" else []
        paths = [path for path in model.rglob("*") if path.is_file()] if model.is_dir() else [model, *weights]
        hashes = {path.relative_to(model.parent).as_posix(): sha256_file(path) for path in sorted(paths)}
        return cls(kind, hashes, figures, preprocessing)

    def require_files(self) -> None:
        """Check that every file is as it was written.

        Raises
        ------
        ArtifactError : one is missing or has changed.
        """
        if self.artifact is None:
            raise ValueError("only a saved edge export has files")
        folder = self.artifact.path.parent
        for name, expected in self.files.items():
            path = folder / name
            if not path.is_file() or sha256_file(path) != expected:
                raise ArtifactError(
                    f"{path} is missing or is not the file that was exported",
                    f"Run `skinlesion export --format {self.format}` again.",
                )

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        name, body = artifact.path.name, parsed(EdgeExportBody, artifact)
        preprocessing = checked_values(Preprocessing, artifact.preprocessing or {}, f"{name}, preprocessing")
        return cls(body.format, body.files, body.figures, preprocessing, artifact)

    def _content(self) -> Content:
        body = {
            "format": self.format,
            "files": dict(self.files),
            "input": INPUT,
            "output": OUTPUT,
            "figures": dict(self.figures),
        }
        return Content(body, preprocessing=self.preprocessing.model_dump(mode="json"))
