"""The Python front door: `from skinlesion_cli import Classifier`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts import bundle as bundles
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.errors import ImageError
from skinlesion_cli.inference.engine import Engine
from skinlesion_cli.inference.loading import load_engine
from skinlesion_cli.taxonomy import CLASS_NAMES

_BATCH = 16
ImageLike = str | os.PathLike[str] | bytes | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """What is said of one image.

    `probabilities` maps each class to its calibrated probability; `argmax` is the most probable class,
    `decision` the class after thresholds, `threshold_fired` the class whose threshold decided, if one did;
    `triage` is refer, review or routine. Where `error` is set the image could not be read and all else is
    empty: no default stands in for a result.
    """

    source: str
    probabilities: dict[str, float] | None = None
    argmax: str | None = None
    decision: str | None = None
    threshold_fired: str | None = None
    malignant_probability: float | None = None
    triage: str | None = None
    error: str | None = None


class Classifier:
    """A calibrated ensemble, loaded once. Research use only; not a medical device.

    >>> classifier = Classifier.load("skinlesion-workspace")  # doctest: +SKIP
    >>> classifier.predict(["a.jpg"])[0].decision  # doctest: +SKIP
    'NV'
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle, self.engine = bundle, engine

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> Classifier:
        """Load the finished ensemble of a workspace or a packed model; `builtin` is the one of this package.

        Raises
        ------
        ArtifactError : a stage is missing, damaged, or does not fit the others; says what to run.
        """
        bundle = bundles.from_workspace(bundles.resolve_model(os.fspath(path)))
        return cls(bundle, load_engine(bundle, device))

    def predict(self, images: Iterable[ImageLike]) -> list[Prediction]:
        """Predict images: paths, encoded bytes, or uint8 RGB arrays (height, width, 3). Order is kept."""
        found: list[Prediction] = []
        batch: list[tuple[str, np.ndarray | ImageError]] = []
        for index, image in enumerate(images):
            batch.append(_load(image, index))
            if len(batch) == _BATCH:
                found += self._predict_batch(batch)
                batch = []
        return found + self._predict_batch(batch)

    def _predict_batch(self, batch: Sequence[tuple[str, np.ndarray | ImageError]]) -> list[Prediction]:
        pixels = [image for _, image in batch if isinstance(image, np.ndarray)]
        if not pixels:
            return [_failed(source, image) for source, image in batch]
        outcome = self.bundle.calibration.decide(self.engine.run(pixels).probabilities)
        decisions = outcome.decisions
        rows = iter(range(len(pixels)))
        found = []
        for source, image in batch:
            if isinstance(image, ImageError):
                found.append(_failed(source, image))
                continue
            row = next(rows)
            fired = int(decisions.fired[row])
            found.append(
                Prediction(
                    source=source,
                    probabilities=dict(zip(CLASS_NAMES, map(float, outcome.probabilities[row]), strict=True)),
                    argmax=CLASS_NAMES[decisions.argmax[row]],
                    decision=CLASS_NAMES[decisions.decided[row]],
                    threshold_fired=CLASS_NAMES[fired] if fired >= 0 else None,
                    malignant_probability=float(outcome.malignant_probability[row]),
                    triage=str(outcome.triage[row]),
                )
            )
        return found


def _load(image: ImageLike, index: int) -> tuple[str, np.ndarray | ImageError]:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image {index}: expected uint8 (height, width, 3), got {image.dtype} {image.shape}"
            )
        return f"array {index}", image
    source = f"bytes {index}" if isinstance(image, bytes) else os.fspath(image)
    try:
        return source, read_image(image if isinstance(image, bytes) else Path(image))
    except ImageError as error:
        return source, error


def _failed(source: str, error: np.ndarray | ImageError) -> Prediction:
    if not isinstance(error, ImageError):
        raise TypeError("only an image that could not be read has failed")
    return Prediction(source, error=f"{error.reason}: {error.message}")
