"""Judge labelled predictions: figures with lesion-clustered intervals, pictures, the official table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion_cli.artifacts import output_checks, own_files
from skinlesion_cli.artifacts.evaluation import Evaluation, challenge_csv, defined, write_evaluation
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.next_command import after_calibration
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.subgroups import by_patient
from skinlesion_cli.decisions.evaluation import figures as judging
from skinlesion_cli.decisions.evaluation.figures import Figures
from skinlesion_cli.decisions.evaluation.prevalence import figures_at_prevalence
from skinlesion_cli.decisions.evaluation.summary import summarise
from skinlesion_cli.decisions.policies.registry import ARGMAX
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.decisions.triage import malignant_probability
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.progress import Reporter
from skinlesion_cli.report import evaluation_tables
from skinlesion_cli.report.pdf import find_chromium, print_page
from skinlesion_cli.report.plots_evaluation import draw
from skinlesion_cli.result import StageResult, Table
from skinlesion_cli.stages.evaluate.decided import by_asked_classes, calibrated, ensemble_predictions, judge
from skinlesion_cli.stages.evaluate.judged import Judged
from skinlesion_cli.stages.evaluate.page import NAME as PAGE
from skinlesion_cli.stages.evaluate.page import write_evaluation_report
from skinlesion_cli.stages.evaluate.patient_metadata import metadata_gain
from skinlesion_cli.stages.evaluate.settings import ENSEMBLE, EvaluateSettings
from skinlesion_cli.taxonomy import DEFAULT, ClassList, shipped

# The official scorer gives this image no weight.
UNSCORED = frozenset({"ISIC_0035068"})
__all__ = ["EvaluateSettings", "run"]

COMPARED = ("bacc", "malignant_bacc", "macro_auc", "malignant/auc", "log_loss", "ece")


def run(settings: EvaluateSettings, reporter: Reporter) -> StageResult:
    """Write `evaluation.json`, pictures and `challenge.csv` to the output folder."""
    workspace = Workspace(settings.workspace)
    if settings.report_pdf is not None:
        find_chromium()
        output_checks.check_file(settings.report_pdf, own_files.is_pdf, "a printed page")
    if settings.output is not None:
        names = ["evaluation.json", "challenge.csv", PAGE]
        _check_output(settings, settings.output, names if settings.report else names[:2])
    everything = judge(workspace, settings, settings.source, settings.decision)
    classes = everything.predictions.classes
    # The challenge, its table and its scorer are about these classes.
    official = classes.agrees_with(shipped(DEFAULT))
    if settings.thresholded and not official:
        raise UsageError(
            f"--thresholded is about the table of the ISIC 2018 challenge, not about {classes.described}",
            "Omit --thresholded.",
        )
    for name in settings.prevalence or ():
        classes.require(name)
    unscored = UNSCORED if official else frozenset()
    scored = ~everything.predictions.table["id"].isin(unscored).to_numpy()
    judged = everything.at(np.flatnonzero(scored))
    notes = list(judged.notes)
    if not scored.all():
        notes.append(f"not scored, as in the official challenge: {', '.join(sorted(UNSCORED))}")
    subgroups, subgroup_notes = _subgroups(workspace, judged)
    with reporter.task(f"bootstrap, {settings.n_resamples:,} resamples by lesion"):
        figures = judging.evaluate(
            judged.labelled(), subgroups=subgroups, n_resamples=settings.n_resamples, seed=settings.seed
        )
    comparison = _compare(workspace, settings, judged, figures) if settings.against else None
    body = {
        "source": settings.source,
        "part": None if settings.source.endswith(".csv") else settings.part,
        "decision": judged.how,
        "intervals": {
            "confidence": 0.95,
            "resamples": settings.n_resamples,
            "clustered_by": "lesion",
            "seed": settings.seed,
        },
        **summarise(
            judged.labelled(),
            figures,
            judged.targets,
            judged.guaranteed,
            judged.levels,
            subgroups,
            judged.alarms,
            judged.level_guarantees,
        ),
        "comparison": comparison,
        "patient_metadata": metadata_gain(workspace, settings, judged),
        "at_prevalence": _at_prevalence(settings, judged),
        "beside": [_stored_figures(folder) for folder in settings.beside],
        "notes": [*notes, *subgroup_notes],
    }
    if (
        official
        and not settings.thresholded
        and body["argmax_bacc"] < body["figures"]["bacc"]["value"] - 0.01
    ):
        notes.append(
            f"challenge.csv is scored by the maximum of its rows: BACC {body['argmax_bacc']:.3f}, not "
            f"{body['figures']['bacc']['value']:.3f}; with --thresholded the decided class is the maximum"
        )
        body["notes"] = [*notes, *subgroup_notes]
    name = "-".join(filter(None, [Path(settings.source).stem, body["part"]]))
    folder = settings.output or settings.workspace / "evaluation" / name
    files = draw(
        judged.labelled(), figures, {target.class_name: target.sensitivity for target in judged.targets}
    )
    if official:
        values = everything.probabilities
        if settings.thresholded:
            values = judging.thresholded(values, everything.decided)
        files["challenge.csv"] = challenge_csv(everything.ids, values, classes.codes)
    if settings.output is not None:
        _check_output(settings, folder, files)
    with exclusive(folder, "evaluate"):
        artifact = write_evaluation(folder, body, files, inputs=judged.inputs, classes=classes)
        reports = []
        if settings.report:
            with reporter.task("writing the report"):
                data = judged.labelled()
                reports.append(
                    write_evaluation_report(folder, workspace, data, judged.ids, body, files, artifact)
                )
            if settings.report_pdf is not None:
                with reporter.task("printing the report"):
                    print_page(reports[0], settings.report_pdf)
                reports.append(settings.report_pdf)
    paths = [str(folder / "evaluation.json"), *(str(folder / name) for name in files), *map(str, reports)]
    result = _result(defined(body), paths, [*notes, *subgroup_notes], classes)
    own = settings.source == ENSEMBLE and workspace.calibration.exists()
    return replace(result, next_command=after_calibration(workspace, evaluated=True)) if own else result


def _at_prevalence(settings: EvaluateSettings, judged: Judged) -> dict[str, Any] | None:
    if settings.prevalence is None:
        return None
    data = judged.labelled()
    return figures_at_prevalence(
        data.labels,
        data.decided,
        judged.levels,
        malignant_probability(data.probabilities, data.classes),
        data.lesion_ids,
        settings.prevalence,
        data.classes,
        settings.n_resamples,
        settings.seed,
    )


def _stored_figures(folder: Path) -> dict[str, Any]:
    """What an earlier evaluation found, for a table of several datasets."""
    body = Evaluation.load(folder / "evaluation.json").body
    kept = ("source", "part", "decision", "support", "figures")
    return {"folder": str(folder.name)} | {name: body.get(name) for name in kept}


def _check_output(settings: EvaluateSettings, folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder where one of these files would replace an input, or what no evaluation wrote."""
    tables = [name for name in (settings.source, settings.against, settings.truth) if name is not None]
    output_checks.check_folder(folder, names, own_files.files_of_evaluation(folder), tables)


def _subgroups(workspace: Workspace, judged: Judged) -> tuple[dict[str, np.ndarray], list[str]]:
    """Masks by sex, age band, site and whether the lesion has other images in training, where the workspace
    knows the images.
    """
    if not workspace.manifest.exists():
        return {}, ["no dataset in the workspace: no figures by subgroup"]
    manifest = Manifest.load(workspace.manifest)
    unknown_ids = set(judged.ids) - set(manifest.table["id"])
    if unknown_ids:
        return {}, [
            f"{len(unknown_ids):,} images are not in the dataset of the workspace: no figures by subgroup"
        ]
    rows = manifest.rows(judged.ids)
    masks = by_patient(rows)
    if workspace.split.exists():
        split = Split.load(workspace.split, manifest)
        with_mates = np.zeros(len(rows), dtype=bool)
        # What a fold held out is judged by the network that trained on the other folds.
        folds = judged.predictions.table["fold"].to_numpy(dtype=str)
        for fold in sorted(set(folds)):
            trained, _ = split.fitted_and_judged(int(fold) if fold else None)
            mates = set(manifest.rows(trained)["lesion_id"])
            here = folds == fold
            with_mates[here] = rows["lesion_id"].isin(mates).to_numpy()[here]
        masks["lesion also in training: yes"] = with_mates
        masks["lesion also in training: no"] = ~with_mates
    return masks, []


def _compare(
    workspace: Workspace, settings: EvaluateSettings, judged: Judged, figures: Figures
) -> dict[str, Any]:
    assert settings.against is not None
    if settings.against == ARGMAX:
        # Of the probabilities before calibration, which may change the order of the classes.
        argmax = metrics.scored_argmax(judged.predictions.probabilities)
        other = replace(judged, decided=argmax, how=ARGMAX)
    else:
        if settings.against.endswith(".json"):
            predictions = ensemble_predictions(workspace, settings.part)
            other = by_asked_classes(calibrated(workspace, predictions, Path(settings.against)), settings)
        else:
            other = judge(workspace, settings, settings.against, None)
        place = {identity: row for row, identity in enumerate(other.ids)}
        missing = [identity for identity in judged.ids if identity not in place]
        if missing:
            raise DataError(f"{settings.against} lacks {len(missing)} of the images, such as {missing[0]}")
        other = other.at(np.array([place[identity] for identity in judged.ids], dtype=np.int64))
        if (other.predictions.labels != judged.predictions.labels).any():
            raise DataError(f"{settings.against} has other labels for the same images")
    # The same lesions, labels and seed: the same draws, so that differences are paired.
    shared = replace(other.labelled(), lesion_ids=judged.predictions.lesion_ids)
    theirs = judging.evaluate(shared, n_resamples=settings.n_resamples, seed=settings.seed)
    classes = judged.predictions.classes
    if other.predictions.classes.codes != classes.codes:
        raise DataError(
            f"{settings.against} is about {other.predictions.classes.described}, "
            f"not about {classes.described}",
            "Judge both by one list with --classes.",
        )
    names = [
        *(name for name in COMPARED if classes.has_malignant or "malignant" not in name),
        *(f"sensitivity/{code}" for code in classes.codes),
    ]
    return {
        "against": settings.against,
        "their_decision": other.how,
        "differences": {
            name: asdict(figures.difference(theirs, name)) | {"theirs": theirs.values[name]} for name in names
        },
    }


def _result(body: dict[str, Any], paths: list[str], warnings: list[str], classes: ClassList) -> StageResult:
    missing = body["support"]["classes_without_images"]
    if missing:
        warnings = [*warnings, f"no images of {', '.join(missing)}: BACC is the mean of the other classes"]
    return StageResult(
        command="evaluate",
        headline=evaluation_tables.headline(body, classes),
        figures=body,
        tables=[Table(*parts) for parts in evaluation_tables.tables(body, classes)],
        artifacts=paths,
        warnings=warnings,
    )
