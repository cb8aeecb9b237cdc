"""What `predict` says when it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.data.reading.folders import describe, summary_lines
from skinlesion_cli.decisions.levels import LEVELS
from skinlesion_cli.decisions.triage_policy import LevelRule, triage_policy
from skinlesion_cli.errors import ExitCode
from skinlesion_cli.inference import loading
from skinlesion_cli.inference.lesion_verdict import LesionVerdict, group_rule
from skinlesion_cli.inference.prediction import ERROR
from skinlesion_cli.inference.summary import Tally, in_training_warning
from skinlesion_cli.result import StageResult, counted
from skinlesion_cli.stages.predict.groups import Lesions
from skinlesion_cli.stages.predict.settings import STDOUT, PredictSettings
from skinlesion_cli.stages.predict.worker import Plan
from skinlesion_cli.taxonomy.class_list import ClassList


def metadata_policy(bundle: Bundle) -> Sequence[LevelRule]:
    """The levels of images of whose patients something is known; empty where the model takes no metadata."""
    if bundle.metadata_calibration is None:
        return ()
    return triage_policy(bundle.metadata_calibration.rule, has_gate=bundle.gate is not None)


def result(
    settings: PredictSettings,
    plan: Plan,
    bundle: Bundle,
    tally: Tally,
    passed_over: Counter[str],
    reports: list[str],
) -> StageResult:
    """Counts, files, and what needs attention."""
    figures = tally.figures()
    policy = triage_policy(bundle.calibration.rule, has_gate=bundle.gate is not None)
    informed_policy = metadata_policy(bundle)
    classes = ", ".join(f"{n} {name}" for name, n in figures["decisions"].items() if n)
    # The full name was said when the model was read, and is a column of the table.
    model = "the bundled model" if bundle.is_bundled else bundle.model_id
    headline = [f"{counted(tally.images, 'image')} predicted by {model}: {classes or 'none'}"]
    if tally.images:
        levels = ", ".join(f"{n} {level}" for level, n in figures["triage"].items() if n)
        passes = _forward_passes(figures["mean_forward_passes"], settings, bundle)
        if bundle.classes.has_malignant:
            headline.append(f"triage: {levels}; {passes}")
            headline.append("an image gets the first level that fits:")
            headline += [f"  {each.level}: {each.sentence}" for each in policy]
            if tally.with_metadata:
                headline.append(f"{counted(tally.with_metadata, 'image')} with patient metadata, instead:")
                headline += [f"  {each.level}: {each.sentence}" for each in informed_policy]
        else:
            headline.append(f"no triage: no class of {bundle.classes.described} is malignant; {passes}")
    artifacts = [] if settings.output == STDOUT else [str(settings.output)]
    if plan.overlays is not None:
        artifacts.append(str(plan.overlays))
    artifacts += reports
    headline += summary_lines(passed_over)
    warnings = []
    archives = {kind: count for kind, count in passed_over.items() if kind.endswith(" archive")}
    if archives:
        warnings.append(
            f"archives in folders are not opened ({describe(Counter(archives))}): give a zip archive as "
            "an input of its own, unpack other archives"
        )
    if tally.failed:
        warnings.append(f"{counted(tally.failed, 'image')} could not be read: {tally.name_failures()}")
    if tally.flagged:
        warnings.append(
            f"{counted(tally.flagged, 'image')} failed a check of the quality gate: flagged for review"
        )
    if tally.in_training:
        warnings.append(in_training_warning(tally.in_training, tally.images, tally.name_in_training()))
    return StageResult(
        command="predict",
        headline=headline,
        figures=figures
        | {
            "model": bundle.model_id,
            "model_sha256": bundle.sha256,
            "runtime": plan.runtime,
            "tta": loading.choose_tta(bundle.calibration, settings.tta, force=settings.force).label,
            "shard": list(settings.shard) if settings.shard else None,
            "passed_over": dict(passed_over),
            "triage_policy": [asdict(each) for each in policy],
            "triage_policy_with_metadata": [asdict(each) for each in informed_policy],
        },
        artifacts=artifacts,
        warnings=warnings,
        next_command=None,
        exit_code=ExitCode.PARTIAL if tally.failed else ExitCode.OK,
    )


def _forward_passes(mean: float, settings: PredictSettings, bundle: Bundle) -> str:
    """How many there were for an image, each one network at one view; of how many, where some were saved."""
    choice = loading.choose_tta(bundle.calibration, settings.tta, force=settings.force)
    if choice.stopping is None:
        return f"{mean:g} forward passes per image"
    possible = len(bundle.members) * len(choice.views)
    return f"{mean:.1f} of {possible} forward passes per image on average"


def _has_level(verdict: LesionVerdict) -> bool:
    """Whether it was triaged, or could not be read; without a malignant class it is neither."""
    return verdict.triage is not None or verdict.decision is None


def with_lesions(
    result: StageResult,
    classes: ClassList,
    lesions: Lesions,
    verdicts: dict[str, LesionVerdict],
    path: Path,
) -> StageResult:
    """The result with what was found by lesion."""
    counts = Counter(verdict.triage or ERROR for verdict in verdicts.values() if _has_level(verdict))
    levels = {level: counts[level] for level in (*LEVELS, ERROR) if level != ERROR or counts[level]}
    words = ", ".join(f"{count} {level}" for level, count in levels.items() if count)
    n_lesions = counted(len(verdicts), "lesion")
    said = [f"{n_lesions}: {words}" if words else n_lesions, f"  {group_rule(classes)}"]
    return replace(
        result,
        headline=[*result.headline, *said],
        figures={**result.figures, "lesions": len(verdicts), "lesion_triage": levels},
        artifacts=[*result.artifacts, str(path)],
        warnings=[*result.warnings, *lesions.warnings()],
    )
