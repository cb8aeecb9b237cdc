"""The page to review a batch, made from the rows on disk when prediction is done."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skinlesion_cli import __version__
from skinlesion_cli.artifacts import output_checks, own_files, prediction_file
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.files import atomic_file
from skinlesion_cli.decisions.triage_policy import triage_policy
from skinlesion_cli.explain.thumbnails import SUFFIX, VIEW_SUFFIX, thumbnail_name
from skinlesion_cli.inference.lesion_verdict import LesionVerdict, group_rule
from skinlesion_cli.inference.prediction import Prediction, table_of
from skinlesion_cli.report.batch import BatchPage, page
from skinlesion_cli.stages.predict.summary import metadata_policy


def page_path(output: Path) -> Path:
    """The page of a table of predictions."""
    return output.with_name(output.stem + "-report.html")


def thumbnails_path(output: Path) -> Path:
    """The folder of the page's thumbnails, beside it."""
    return output.with_name(output.stem + "-report")


def check_output(output: Path, inputs: Sequence[str]) -> None:
    """Refuse a page or a folder of thumbnails that would replace anything but those of an earlier run.

    Raises
    ------
    UsageError : naming it.
    """
    page_file = page_path(output)
    output_checks.check_file(page_file, own_files.is_page, "a page of predictions", inputs)
    output_checks.check_mirror(
        thumbnails_path(output),
        output,
        inputs,
        names=re.compile(re.escape(SUFFIX) + "$"),
        # Thumbnails carry no mark of their own: those of earlier versions are known by the page beside them.
        is_own=lambda path: own_files.is_page(page_file),
    )


def _with_metadata(bundle: Bundle) -> dict[str, str]:
    """What decides on images of whose patients something is known, where the model takes patient metadata."""
    if bundle.metadata_calibration is None:
        return {}
    fires_above = bundle.metadata_calibration.rule.fires_above
    return {
        "thresholds with patient metadata": ", ".join(f"{k} {value:.3f}" for k, value in fires_above.items())
        or "none",
        "levels with patient metadata": "; ".join(
            f"{each.level}: {each.sentence}" for each in metadata_policy(bundle)
        ),
    }


def write_report(
    output: Path,
    kind: str,
    bundle: Bundle,
    overlays: Path | None,
    facts: dict[str, Any],
    lesions: Mapping[str, LesionVerdict],
) -> Path:
    """Write the page of the table `output`; memory does not grow with the number of its rows."""
    thumbnails = thumbnails_path(output)

    def small(identity: str) -> bytes | None:
        try:
            return (thumbnails / thumbnail_name(identity)).read_bytes()
        except OSError:
            return None

    def view_url(identity: str) -> str:
        name = thumbnail_name(identity, VIEW_SUFFIX)
        return f"{thumbnails.name}/{name}" if (thumbnails / name).is_file() else ""

    calibration = bundle.calibration
    about = BatchPage(
        title=f"Predictions of {output.name}",
        classes=bundle.classes,
        thumbnail=small,
        thumbnail_url=lambda identity: f"{thumbnails.name}/{thumbnail_name(identity)}",
        overlay_url=lambda cam: f"{overlays.name}/{cam}" if overlays else "",
        halves=overlays is not None,
        thresholds=calibration.rule.fires_above,
        policy=triage_policy(calibration.rule, has_gate=bundle.gate is not None),
        facts={
            "model": bundle.model_id,
            "model sha256": bundle.sha256,
            **facts,
            "thresholds": ", ".join(
                f"{name} {value:.3f}" for name, value in calibration.rule.fires_above.items()
            )
            or "none",
            **_with_metadata(bundle),
            "policy": calibration.policy,
            "malignant operating point": calibration.rule.malignant_threshold,
            "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "skinlesion": __version__,
        },
        model_sha256=bundle.sha256,
        view_url=view_url,
        lesions=lesions,
        group_rule=group_rule(bundle.classes) if lesions else "",
    )
    path = page_path(output)
    rows = prediction_file.read_rows(output, kind, table_of(bundle.classes))
    html = page(map(Prediction.from_row, rows), about)
    with atomic_file(path, "w") as file:
        file.write(html)
    return path
