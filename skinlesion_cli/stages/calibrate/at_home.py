"""Calibrate a finished model on the labelled images of one's own clinic, without training.

The networks and their weights stay as they are. The model predicts the images, all that turns probabilities
into decisions is fitted to those predictions, and the result is packed as a model of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from pydantic import Field, InstanceOf

from skinlesion_cli.artifacts import output_checks
from skinlesion_cli.artifacts.bundle import Bundle, copy_model, resolve_model
from skinlesion_cli.artifacts.external_truth import bare_id
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.training_images import StoredTrainingImages
from skinlesion_cli.artifacts.workspace import Workspace, with_metadata
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.data.metadata import PatientMetadata
from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.data.sources.base import Collection, Record, SourceOptions
from skinlesion_cli.data.sources.registry import read_source
from skinlesion_cli.data.spectrum import spectrum
from skinlesion_cli.decisions.adaptive.fit import fewest_lesions
from skinlesion_cli.decisions.adaptive.stopping import Protects
from skinlesion_cli.decisions.ensemble import combine
from skinlesion_cli.decisions.fingerprints import FingerprintSet, fingerprints_of
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.errors import DataError, UsageError, name_items
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.parallel import available_cores, in_order
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, counted
from skinlesion_cli.stages.calibrate import stage

_FEWEST_IMAGES = 20


class RecalibrateSettings(StageSettings):
    """Which model (`builtin`, or a folder), on which labelled images, to which new folder.

    `on` is any source of labelled images (see `data.sources.registry`). `adaptive` None: as the model has it.
    """

    model: str
    on: Path
    output: Path
    fit: InstanceOf[FitSettings] = Field(default_factory=FitSettings)
    adaptive: Protects | None = None
    device: str = "auto"


@dataclass(frozen=True)
class _Seen:
    """The views of one image, float32 (n_members, n_views, 7); or why it could not be read.

    `informed` : the same with what is known of the patient; None where the model takes no patient metadata.
    `in_training` : the model knows the image from its training. `spectrum` : float32 (24, 24), see
    `data.spectrum`; None where the model has no list of its training images.
    """

    record: Record
    views: np.ndarray | None
    informed: np.ndarray | None = None
    error: str = ""
    in_training: bool = False
    spectrum: np.ndarray | None = None


def run(settings: RecalibrateSettings, reporter: Reporter) -> StageResult:
    """Write a packed model to `output`: the same networks, calibrated on these images.

    Raises
    ------
    UsageError : the output holds a model already, or no image could be read.
    DataError : images that the model was trained on are among them, or there are too few.
    """
    source, target = resolve_model(settings.model), Workspace(settings.output)
    if target.begun():
        raise UsageError(
            f"there is a model in {settings.output} already", "Name a new folder, or remove it first."
        )
    output_checks.check_new_folder(settings.output)
    bundle = Bundle.load(source)
    collection = read_source(settings.on, "auto", SourceOptions(classes=bundle.classes))
    _refuse_trained_on(collection, source)
    seen = _predicted(bundle, collection, settings, reporter)
    _refuse([one.record.id for one in seen if one.in_training], "are in the training data of the model")
    failed = [f"{one.record.id} ({one.error})" for one in seen if one.views is None]
    usable = [one for one in seen if one.views is not None]
    if len(usable) < _FEWEST_IMAGES:
        raise DataError(
            f"calibration needs at least {_FEWEST_IMAGES} labelled images, {len(usable)} could be read",
            "A few hundred are needed for guarantees of any use.",
        )
    predictions, informed = _stored(bundle, usable, "val"), None
    if bundle.metadata_calibration is not None:
        informed = _stored(bundle, usable, with_metadata("val"))
    with exclusive(target.root, "calibrate"):
        # Until it is calibrated on these images it is no model.
        copy_model(source, target, bundle, with_calibration=False)
        _list_images(target, usable)
        assert bundle.ensemble.artifact is not None
        inputs = {"ensemble": bundle.ensemble.artifact}
        predictions.save(target.ensemble_predictions("val"), inputs=inputs)
        if informed is not None:
            informed.save(target.ensemble_predictions(informed.part), inputs=inputs)
        adaptive, notes = _adaptive(settings, bundle, predictions)
        result = stage.run(
            stage.CalibrateSettings(workspace=target.root, fit=settings.fit, adaptive=adaptive),
            reporter,
        )
    packed = Bundle.load(target)
    labels = Counter(one.record.label for one in usable)
    by_class = ", ".join(f"{labels[name]} {name}" for name in bundle.classes.codes if labels[name])
    warnings = [*result.warnings, *notes]
    if failed:
        unread = counted(len(failed), "image")
        warnings.append(f"omitted {unread} that could not be read: {name_items(failed)}")
    return replace(
        result,
        headline=[
            f"{bundle.model_id} calibrated on {len(usable):,} images from {settings.on} ({by_class})",
            *result.headline,
        ],
        figures=dict(result.figures)
        | {"model": packed.model_id, "model_sha256": packed.sha256, "failed": len(failed)},
        artifacts=[str(target.root)],
        warnings=warnings,
        next_command=result.next_command and f"skinlesion predict ./images --model {settings.output}",
    )


def _adaptive(
    settings: RecalibrateSettings, bundle: Bundle, predictions: Predictions
) -> tuple[Protects | None, list[str]]:
    """What adaptive forward passes are to protect, as asked for or as the model has it,
    and what to say about it.
    """
    stopping = bundle.calibration.stopping_rule
    if settings.adaptive is not None or stopping is None:
        return settings.adaptive, []
    lesions, needed = len(set(predictions.lesion_ids)), fewest_lesions()
    if lesions >= needed:
        return stopping.protects, []
    return None, [
        f"{lesions} lesions are too few to bound what stopping early costs ({needed} are needed): the "
        "calibrated model "
        "takes every forward pass of every image, and is slower for it"
    ]


def _refuse_trained_on(collection: Collection, source: Workspace) -> None:
    """Calibrating on images that the networks learned from would make every figure too good."""
    if not source.ensemble_predictions("val").exists():
        return
    trained_on = {
        bare_id(identity) for identity in Predictions.load(source.ensemble_predictions("val")).table["id"]
    }
    known = [record.id for record in collection.records if bare_id(record.id) in trained_on]
    _refuse(known, "have the ids of images that the model was trained on")


def _refuse(ids: Sequence[str], problem: str) -> None:
    if ids:
        raise DataError(
            f"{len(ids)} of these images {problem}: {name_items(ids)}",
            "Calibrate on images that it has not seen.",
        )


def _predicted(
    bundle: Bundle, collection: Collection, settings: RecalibrateSettings, reporter: Reporter
) -> list[_Seen]:
    predictor = Predictor.of_bundle(bundle, device=settings.device, note=reporter.note).stopping_by(None)
    # One calibration is for images alone, whatever DICOM files say of patients.
    alone = Predictor(replace(bundle, metadata_calibration=None), predictor.engine)

    def see(record: Record) -> _Seen:
        try:
            content = record.origin.read()
        except OSError as error:
            return _Seen(record, None, error=str(error))
        image = ImageInput(record.id, Path(PurePosixPath(record.file).name), content=content)
        batch = alone.run([image], keep_views=True)
        if batch.output is None or batch.output.view_probabilities is None:
            return _Seen(record, None, error=batch.predictions[0].error or "unreadable")
        one = _Seen(
            record,
            batch.output.view_probabilities[:, :, 0],
            in_training=batch.predictions[0].in_training,
            spectrum=None if bundle.training_images is None else spectrum(batch.images[0]),
        )
        if not predictor.takes_metadata:
            return one
        patient, _ = PatientMetadata.of_texts(record.age_years, record.sex, record.site)
        known = predictor.run([replace(image, patient=patient)], keep_views=True).output
        assert known is not None
        assert known.view_probabilities is not None
        return replace(one, informed=known.view_probabilities[:, :, 0])

    seen = []
    with reporter.task("predicting", total=len(collection.records), unit="images") as task:
        for one in in_order(collection.records, see, threads=available_cores()):
            seen.append(one)
            task.advance()
    return seen


def _list_images(target: Workspace, usable: Sequence[_Seen]) -> None:
    """Add these images to the list of those that the networks or the decisions were fitted on, if there is
    one.
    """
    spectra = [one.spectrum for one in usable if one.spectrum is not None]
    if not spectra:
        return
    listed = StoredTrainingImages.load(target.training_images)
    assert listed.artifact is not None
    codes, _ = fingerprints_of(np.stack(spectra))
    StoredTrainingImages(
        FingerprintSet(np.concatenate([listed.fingerprints.codes, codes])),
        listed.n_images + len(spectra),
        listed.checkpoints,
    ).save(target.training_images, inputs=listed.artifact.inputs)


def _stored(bundle: Bundle, usable: Sequence[_Seen], part: str) -> Predictions:
    """Their predictions, with patient metadata or without, as `ensemble` stores a validation part."""
    ensemble = bundle.ensemble
    each = [one.views if part == "val" else one.informed for one in usable]
    views = np.stack([one for one in each if one is not None], axis=1)  # (members, n, views, 7)
    n_views = views.shape[2]
    merged = np.stack([combine(views[:, :, view], ensemble.weights) for view in range(n_views)], axis=1)
    groups = None
    if len(ensemble.member_groups) > 1:
        shares = [
            ensemble.weights[list(group)] / ensemble.weights[list(group)].sum()
            for group in ensemble.member_groups
        ]
        groups = np.stack(
            [
                np.tensordot(share, views[list(group)], axes=1).astype(np.float32)
                for group, share in zip(ensemble.member_groups, shares, strict=True)
            ],
            axis=1,
        )
    table = pd.DataFrame(
        {
            "id": [one.record.id for one in usable],
            "lesion_id": [one.record.lesion_id or f"image:{one.record.id}" for one in usable],
            "label": [one.record.label for one in usable],
            "fold": "",
        }
    )
    return Predictions(
        table,
        merged.astype(np.float32),
        ensemble.views,
        source="ensemble",
        part=part,
        classes=bundle.classes,
        group_probabilities=groups,
    )
