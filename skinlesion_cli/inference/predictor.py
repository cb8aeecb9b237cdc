"""The one way to run a model on images; every command and the Python interface use it.

A `Predictor` holds all that decides a prediction: the networks, their runtime, the test-time views, how
images are decoded, the quality gate and the decision rule. Whoever asks,
the same image gets the same `Prediction`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.data.preprocess import decode_target_px
from skinlesion_cli.data.quality import statistics
from skinlesion_cli.data.reading.images import check_not_blank
from skinlesion_cli.data.reading.inputs import ImageInput, expand, expand_bytes, identity, load
from skinlesion_cli.data.reading.limits import MAX_PIXELS, check_size
from skinlesion_cli.data.reading.loaded import LoadedImage
from skinlesion_cli.decisions.quality_gate import QualityGate, Verdict
from skinlesion_cli.decisions.triage import Outcome
from skinlesion_cli.errors import ArtifactError, ImageError, UsageError, name_items
from skinlesion_cli.inference.engine import BatchOutput, Engine, Stopping
from skinlesion_cli.inference.loading import load_engine
from skinlesion_cli.inference.prediction import Prediction
from skinlesion_cli.inference.similar import SimilarCases
from skinlesion_cli.parallel import in_batches

# What a caller of the Python interface may hand in.
ImageLike = str | os.PathLike[str] | bytes | np.ndarray | ImageInput
_BATCH = 16


@dataclass(frozen=True)
class DecodedImage:
    """An image whose pixels were handed in: uint8 (height, width, 3), upright RGB."""

    id: str
    pixels: np.ndarray


Source = ImageInput | DecodedImage


@dataclass(frozen=True)
class PredictedBatch:
    """What was predicted of a batch of sources, and what it was made from.

    Attributes
    ----------
    predictions : one of each source, in order; some may be errors.
    decoded : indexes of the sources that could be read; `images`, `output` and `outcome` are of these alone.
    images : their pixels as they were decoded, uint8 (height, width, 3).
    output, outcome : of the engine and of the decision rule; None where no source could be read.
    """

    predictions: tuple[Prediction, ...]
    decoded: tuple[int, ...] = ()
    images: tuple[np.ndarray, ...] = ()
    output: BatchOutput | None = None
    outcome: Outcome | None = None


def _pooled_member(gate: QualityGate | None, similar: SimilarCases | None, engine: Engine) -> int | None:
    """The member (by index) whose pooled features the quality gate and the search for similar cases use; None
    where neither uses any.

    Raises
    ------
    ArtifactError : they were fitted with a network that the ensemble lacks, or with two.
    """
    used = {
        what: network
        for what, network in (
            ("quality gate", gate.features.network if gate is not None and gate.features else None),
            ("table of similar cases", similar.table.network if similar is not None else None),
        )
        if network is not None
    }
    if not used:
        return None
    names = [member.name for member in engine.members]
    for what, network in used.items():
        if network not in names or len(set(used.values())) > 1:
            raise ArtifactError(
                f"the {what} was fitted with the network {network}, but the ensemble has {name_items(names)}"
                if network not in names
                else "the quality gate and the table of similar cases were fitted with two networks: "
                + name_items(used.values()),
                "Run `skinlesion gate` again.",
            )
    return names.index(next(iter(used.values())))


class Predictor:
    """A model, ready to predict. It may be used from several threads at once.

    Attributes
    ----------
    bundle : networks, ensemble, calibration and quality gate.
    engine : the networks on their runtime, with the test-time views.
    target_px : pixels a side that decoding leaves (a large JPEG is decoded
        at reduced scale; see `read_image`).
    max_pixels : images with more pixels than this are refused.
    similar : finds the labelled lesions that are most like an image; None: they are not looked for.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        max_pixels: int = MAX_PIXELS,
        similar: SimilarCases | None = None,
    ) -> None:
        self.bundle, self.engine, self.max_pixels, self.similar = bundle, engine, max_pixels, similar
        self.target_px = max(decode_target_px(member.preprocessing) for member in engine.members)
        self._pooled_member = _pooled_member(bundle.gate, similar, engine)

    @classmethod
    def of_bundle(
        cls,
        bundle: Bundle,
        *,
        device: str = "auto",
        runtime: str = "auto",
        tta: str | None = None,
        force: bool = False,
        max_pixels: int = MAX_PIXELS,
        model: str | None = None,
        similar: SimilarCases | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> Self:
        """Load the networks of a bundle; parameters and errors as in `loading.load_engine`.

        `tta` None: as calibrated. Any other mode needs `force`.
        """
        engine = load_engine(bundle, device, runtime, tta_mode=tta, force=force, model=model, note=note)
        return cls(bundle, engine, max_pixels=max_pixels, similar=similar)

    @property
    def origin(self) -> dict[str, Any]:
        """The fields of a prediction that say what made it."""
        return {
            "tta": self.engine.tta_mode,
            "model": self.bundle.model_id,
            "model_sha256": self.bundle.sha256,
        }

    def stopping_by(self, stopping: Stopping | None) -> Self:
        """The same predictor with another stopping rule; None: every forward pass of every image."""
        engine = copy(self.engine)
        engine.stopping = stopping
        return type(self)(self.bundle, engine, max_pixels=self.max_pixels, similar=self.similar)

    def predict(self, images: Iterable[ImageLike]) -> list[Prediction]:
        """Predict images: paths, encoded bytes, uint8 RGB arrays (height, width, 3), or `ImageInput`s.
        Order is kept.

        There is one prediction per image: several for a file with several frames, a folder or an archive, as
        in the table of `skinlesion predict`. An image that cannot be read becomes a prediction with `error`
        set.

        Raises
        ------
        ValueError
            An array of another shape or dtype.
        UsageError
            A folder or archive without images.
        """
        sources = (source for index, image in enumerate(images) for source in sources_of(image, index))
        return [
            prediction for batch in in_batches(sources, _BATCH) for prediction in self.run(batch).predictions
        ]

    def decode(self, source: Source) -> np.ndarray:
        """The pixels that are predicted, uint8 (height, width, 3); possibly at reduced scale.

        Raises
        ------
        ImageError : it was refused or cannot be read.
        """
        return self._load(source).pixels

    def _load(self, source: Source) -> LoadedImage:
        """The same with the notes on how it was read.

        Raises
        ------
        ImageError : it was refused or cannot be read.
        """
        if isinstance(source, DecodedImage):
            height, width = source.pixels.shape[:2]
            check_size(width, height, max_pixels=self.max_pixels)
            check_not_blank(source.pixels)
            return LoadedImage(source.pixels)
        return load(source, max_pixels=self.max_pixels, target_px=self.target_px)

    def decode_in_full(self, source: Source, decoded: np.ndarray) -> np.ndarray:
        """The image at its own size: `decoded` itself where nothing larger can have been read."""
        if isinstance(source, DecodedImage) or min(decoded.shape[:2]) < 2 * self.target_px:
            return decoded
        return load(source, max_pixels=self.max_pixels).pixels

    def run(
        self, sources: Sequence[Source], *, keep_layers: bool = False, keep_views: bool = False
    ) -> PredictedBatch:
        """Predict one batch; what else to keep as in `Engine.run`.

        Raises
        ------
        ArtifactError : a network returned something that is not finite.
        """
        images: dict[int, LoadedImage] = {}
        errors: dict[int, ImageError] = {}
        for index, source in enumerate(sources):
            try:
                images[index] = self._load(source)
            except ImageError as error:
                errors[index] = error
        failed = {i: Prediction.failed(sources[i].id, error, **self.origin) for i, error in errors.items()}
        if not images:
            return PredictedBatch(tuple(failed.values()))
        pixels = tuple(image.pixels for image in images.values())
        try:
            output = self.engine.run(
                pixels,
                keep_layers=keep_layers,
                keep_views=keep_views,
                pool_features_of=self._pooled_member,
            )
        except FloatingPointError as error:
            raise ArtifactError(
                f"{error}, for one of {name_items(sources[index].id for index in images)}",
                "The network is damaged or its training diverged: train it again.",
            ) from None
        verdicts = self._verdicts(pixels, output)
        flagged = np.array([verdict is not None and verdict.flagged for verdict in verdicts])
        failed_checks = [() if verdict is None else verdict.failed for verdict in verdicts]
        outcome = self.bundle.calibration.decide(output.probabilities, flagged, failed_checks)
        similar = self._similar(output)
        predicted = {
            index: Prediction.decided(
                sources[index].id,
                outcome,
                row,
                forward_passes=int(output.forward_passes[row]),
                quality=verdicts[row],
                notes=images[index].notes or None,
                similar=similar[row] if similar else None,
                **self.origin,
            )
            for row, index in enumerate(images)
        }
        everything = predicted | failed
        return PredictedBatch(
            tuple(everything[index] for index in range(len(sources))),
            tuple(images),
            pixels,
            output,
            outcome,
        )

    def _similar(self, output: BatchOutput) -> list[dict[str, Any]]:
        if self.similar is None or output.pooled_features is None:
            return []
        return self.similar.of(output.pooled_features)

    def _verdicts(self, images: Sequence[np.ndarray], output: BatchOutput) -> list[Verdict | None]:
        gate, pooled = self.bundle.gate, output.pooled_features
        if gate is None:
            return [None] * len(images)
        features = [None] * len(images) if pooled is None or gate.features is None else list(pooled)
        return [gate.verdict(statistics(image), row) for image, row in zip(images, features, strict=True)]


def sources_of(image: ImageLike, index: int) -> Iterator[Source]:
    """The images of what a caller handed in; `index` names those that have no name.

    Raises
    ------
    ValueError : an array that is not uint8 (height, width, 3).
    UsageError : a folder or archive without images.
    """
    if isinstance(image, ImageInput):
        yield image
        return
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image {index}: expected uint8 (height, width, 3), got {image.dtype} {image.shape}"
            )
        yield DecodedImage(f"array {index}", image)
        return
    if isinstance(image, bytes):
        yield from expand_bytes(f"bytes {index}", image)
        return
    path = os.fspath(image)
    first = None
    for first in expand((), (path,)):
        yield first
    if first is None:
        raise UsageError(f"there are no images in {identity(path)}", "Name image files, folders or archives.")
