"""The one way to run a model on images; every command and the Python interface use it.

A `Predictor` holds all that decides a prediction: the networks, their runtime, the test-time views, how
images are decoded, the quality gate and the decision rule. Whoever asks, the same image gets the same
`Prediction`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.data.metadata import NOTHING_KNOWN, PatientMetadata
from skinlesion_cli.data.preprocess import decode_target_px
from skinlesion_cli.data.quality import statistics
from skinlesion_cli.data.reading.inputs import ImageInput, load
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.data.reading.loaded import LoadedImage
from skinlesion_cli.data.spectrum import spectrum
from skinlesion_cli.decisions.quality_gate import Verdict
from skinlesion_cli.decisions.triage import Outcome
from skinlesion_cli.errors import ArtifactError, ImageError, name_items
from skinlesion_cli.inference.engine import BatchOutput, Engine, Stopping
from skinlesion_cli.inference.loading import choose_tta, load_engine
from skinlesion_cli.inference.prediction import IN_TRAINING, Prediction
from skinlesion_cli.inference.similar import SimilarCases, pooled_member
from skinlesion_cli.inference.sources import ImageLike, Source, load_source, sources_of
from skinlesion_cli.parallel import in_batches

_BATCH = 16


@dataclass(frozen=True)
class PredictedBatch:
    """What was predicted of a batch of sources, and what it was made from.

    Attributes
    ----------
    predictions : one of each source, in order; some may be errors.
    decoded : indexes of the sources that could be read; the other attributes are of these alone, in order.
    images : their pixels as they were decoded, uint8 (height, width, 3).
    reduced : whether they were decoded at a reduced scale.
    output : of the engine; None where no source could be read.
    decided, probabilities : the class decided on, int64 (n,), and calibrated probabilities, float32
        (n, n_classes); None where no source could be read.
    """

    predictions: tuple[Prediction, ...]
    decoded: tuple[int, ...] = ()
    images: tuple[np.ndarray, ...] = ()
    reduced: tuple[bool, ...] = ()
    output: BatchOutput | None = None
    decided: np.ndarray | None = None
    probabilities: np.ndarray | None = None


@dataclass(frozen=True)
class _Way:
    """How images are predicted: a calibration, and the engine with its stopping rule."""

    calibration: Calibration
    engine: Engine


class Predictor:
    """A model, ready to predict. It may be used from several threads at once.

    Attributes
    ----------
    bundle : networks, ensemble, calibration, quality gate, and fingerprints of the training images.
    engine : the networks on their runtime, with the test-time views.
    target_px : pixels a side that decoding leaves (a large JPEG is decoded
        at reduced scale; see `read_image`).
    max_pixels : images with more pixels than this are refused.
    similar : finds the labelled lesions that are most like an image; None: they are not looked for.

    Images of whose patients something is known are predicted with it, and decided on by a calibration that
    was fitted with it, where the model has one (`takes_metadata`). `informed` is the engine for these: the
    same networks, with the stopping rule of that calibration.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        informed: Engine | None = None,
        max_pixels: int = MAX_PIXELS,
        similar: SimilarCases | None = None,
    ) -> None:
        self.bundle, self.engine, self.max_pixels, self.similar = bundle, engine, max_pixels, similar
        self.informed = informed
        self._plain = _Way(bundle.calibration, engine)
        self._with_metadata = None
        if informed is not None and bundle.metadata_calibration is not None:
            self._with_metadata = _Way(bundle.metadata_calibration, informed)
        self.target_px = max(decode_target_px(member.preprocessing) for member in engine.members)
        self._pooled_member = pooled_member(bundle.gate, similar, engine)

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
        informed = None
        if bundle.metadata_calibration is not None:
            choice = choose_tta(bundle.metadata_calibration, tta, force=force)
            informed = engine.stopping_by(choice.stopping)
        return cls(bundle, engine, informed=informed, max_pixels=max_pixels, similar=similar)

    @property
    def takes_metadata(self) -> bool:
        """Whether what is known of a patient changes the prediction."""
        return self._with_metadata is not None

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
        return type(self)(
            self.bundle,
            self.engine.stopping_by(stopping),
            informed=None if self.informed is None else self.informed.stopping_by(stopping),
            max_pixels=self.max_pixels,
            similar=self.similar,
        )

    def predict(
        self, images: Iterable[ImageLike], patients: Iterable[PatientMetadata | None] | None = None
    ) -> list[Prediction]:
        """Predict images: paths, encoded bytes, uint8 RGB arrays (height, width, 3), or `ImageInput`s.
        Order is kept.

        `patients` : what is known of the patient of each image (of all images in a folder or archive); None:
        what DICOM files say. It is used where the model `takes_metadata`.

        There is one prediction per image: several for a file with several frames, a folder or an archive, as
        in the table of `skinlesion predict`. An image that cannot be read becomes a prediction with `error`
        set.

        Raises
        ------
        ValueError
            An array of another shape or dtype, or not as many patients as images.
        UsageError
            A folder or archive without images.
        """
        if patients is None:
            sources = (source for index, image in enumerate(images) for source in sources_of(image, index))
        else:
            sources = (
                source if patient is None else replace(source, patient=patient)
                for index, (image, patient) in enumerate(zip(images, patients, strict=True))
                for source in sources_of(image, index)
            )
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
        return load_source(source, self.max_pixels, self.target_px)

    def in_full(
        self, sources: Sequence[Source], batch: PredictedBatch
    ) -> list[np.ndarray | Callable[[], np.ndarray]]:
        """The decoded images of a batch of sources at their own size. Those that were decoded at a reduced
        scale are functions that read them, so that no more than one large image is in memory at a time.
        """
        return [
            partial(self._in_full, source) if reduced and isinstance(source, ImageInput) else pixels
            for source, pixels, reduced in zip(
                (sources[index] for index in batch.decoded), batch.images, batch.reduced, strict=True
            )
        ]

    def _in_full(self, source: ImageInput) -> np.ndarray:
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
        patients = {index: self._patient(sources[index], image) for index, image in images.items()}
        groups: dict[bool, list[int]] = {}
        for index, patient in patients.items():
            groups.setdefault(bool(patient.known), []).append(index)
        predicted, outputs, outcomes = {}, [], []
        for known, indexes in groups.items():
            way = self._with_metadata if known and self._with_metadata is not None else self._plain
            group = {index: images[index] for index in indexes}
            try:
                output = way.engine.run(
                    [image.pixels for image in group.values()],
                    patients=[patients[index] for index in indexes] if known else None,
                    keep_layers=keep_layers,
                    keep_views=keep_views,
                    pool_features_of=self._pooled_member,
                )
            except FloatingPointError as error:
                raise ArtifactError(
                    f"{error}, for one of {name_items(sources[index].id for index in indexes)}",
                    "The network is damaged or its training diverged: train it again.",
                ) from None
            outcome, of_group = self._decide(way.calibration, sources, group, patients, output)
            predicted.update(of_group)
            outputs.append(output)
            outcomes.append(outcome)
        order = np.argsort([index for indexes in groups.values() for index in indexes])
        everything = predicted | failed
        return PredictedBatch(
            tuple(everything[index] for index in range(len(sources))),
            tuple(images),
            tuple(image.pixels for image in images.values()),
            tuple(image.reduced for image in images.values()),
            BatchOutput.joined(outputs, order) if len(outputs) > 1 else outputs[0],
            np.concatenate([outcome.decisions.decided for outcome in outcomes])[order],
            np.concatenate([outcome.probabilities for outcome in outcomes])[order],
        )

    def _patient(self, source: Source, image: LoadedImage) -> PatientMetadata:
        """What is known of the patient and used: what the user said, and else what the file says."""
        if self._with_metadata is None:
            return NOTHING_KNOWN
        patient = image.patient if source.patient is None else source.patient.or_else(image.patient)
        fields = self.engine.metadata_fields
        return PatientMetadata(
            age_years=patient.age_years if "age" in fields else None,
            sex=patient.sex if "sex" in fields else None,
            site=patient.site if "site" in fields else None,
        )

    def _decide(
        self,
        calibration: Calibration,
        sources: Sequence[Source],
        images: Mapping[int, LoadedImage],
        patients: Mapping[int, PatientMetadata],
        output: BatchOutput,
    ) -> tuple[Outcome, dict[int, Prediction]]:
        """The outcome of a group of images that were predicted in the same way; predictions by index."""
        verdicts = self._verdicts([image.pixels for image in images.values()], output)
        flagged = np.array([verdict is not None and verdict.flagged for verdict in verdicts])
        failed_checks = [() if verdict is None else verdict.failed for verdict in verdicts]
        outcome = calibration.decide(output.probabilities, flagged, failed_checks)
        similar = self._similar(output)
        in_training = self._in_training([image.pixels for image in images.values()])
        return outcome, {
            index: Prediction.decided(
                sources[index].id,
                outcome,
                row,
                self.bundle.classes,
                forward_passes=int(output.forward_passes[row]),
                quality=verdicts[row],
                notes=(*self._notes(sources[index], image), *in_training[row]) or None,
                similar=similar[row] if similar else None,
                patient_data=patients[index].known if self.takes_metadata else None,
                **self.origin,
            )
            for row, (index, image) in enumerate(images.items())
        }

    def _notes(self, source: Source, image: LoadedImage) -> tuple[str, ...]:
        # What the user said needs no words of the file.
        if not image.not_understood or not self.takes_metadata or source.patient is not None:
            return image.notes
        return (*image.notes, f"taken as not known: {', '.join(image.not_understood)}")

    def _in_training(self, images: Sequence[np.ndarray]) -> list[tuple[str, ...]]:
        """The note of each image that the model has seen in training."""
        if self.bundle.training_images is None:
            return [()] * len(images)
        contained = self.bundle.training_images.contains(np.stack([spectrum(image) for image in images]))
        return [(IN_TRAINING,) if each else () for each in contained]

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
