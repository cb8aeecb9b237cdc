"""Whether this machine can do the work: what is installed and there, and a prediction with a known answer.

Every check imports what it needs itself, so that the others still run where a library is missing or broken.
Nothing connects to the network without `--network`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from skinlesion_cli import __version__
from skinlesion_cli.errors import ExitCode, SkinLesionError
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, Table, counted
from skinlesion_cli.stages.doctor import installation, machine, models
from skinlesion_cli.stages.doctor.finding import REINSTALL, Check, DoctorSettings, Finding

CHECKS: Mapping[str, Check] = {
    "python": installation.python,
    "libraries": installation.libraries,
    "image kinds": installation.image_kinds,
    "loading": installation.loading,
    "devices": machine.devices,
    "threads": machine.threads,
    "disk": machine.disk,
    "ImageNet weights": models.weights,
    "workspace": models.models,
    "network": machine.network,
    "self-test": models.self_test,
}


def run(settings: DoctorSettings, reporter: Reporter) -> StageResult:
    """Run all checks; a problem makes the exit code 1, advice does not."""
    checks = {name: check for name, check in CHECKS.items() if settings.network or name != "network"}
    findings: list[Finding] = []
    with reporter.task("checking", total=len(checks), unit="checks") as task:
        for name, check in checks.items():
            task.describe(f"checking {name}")
            findings += _safely(name, check, settings)
            task.advance()
    counts = {state: sum(f.state == state for f in findings) for state in ("ok", "advice", "problem")}
    to_do = [(f.check, f.to_do) for f in findings if f.to_do]
    return StageResult(
        command="doctor",
        headline=[_verdict(counts)],
        figures={"findings": [asdict(finding) for finding in findings], "counts": counts},
        tables=[
            Table(
                f"skinlesion {__version__}",
                ("check", "state", "found"),
                [(f.check, f.state, f.found) for f in findings],
            ),
            *([Table("What to do", ("check", "what to do"), to_do)] if to_do else []),
        ],
        exit_code=ExitCode.FAILURE if counts["problem"] else ExitCode.OK,
    )


def _verdict(counts: Mapping[str, int]) -> str:
    suggestions = counted(counts["advice"], "suggestion")
    if not counts["problem"]:
        return f"nothing is broken; {suggestions}" if counts["advice"] else "all is well"
    return f"{counted(counts['problem'], 'problem')}, {suggestions}"


def _safely(name: str, check: Check, settings: DoctorSettings) -> list[Finding]:
    """A check that fails is a finding itself, and the others still run."""
    findings: list[Finding] = []
    try:
        findings.extend(check(settings))
    except SkinLesionError as error:
        findings.append(Finding(name, "problem", error.message, error.hint or REINSTALL))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        findings.append(Finding(name, "problem", f"{type(error).__name__}: {reason}", REINSTALL))
    return findings
