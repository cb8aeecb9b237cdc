"""How to calibrate: options and a YAML file become `decisions.fit.FitSettings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skinlesion_cli.config.reading import yaml_mapping
from skinlesion_cli.config.schema import Fraction, Frozen, NonNegative
from skinlesion_cli.config.settings import problems
from skinlesion_cli.decisions.calibration import Method
from skinlesion_cli.decisions.policies.registry import named_policy
from skinlesion_cli.decisions.settings import Costs, FitSettings, GuaranteeSettings, Target, TriageSettings
from skinlesion_cli.errors import UsageError

TARGET_EXAMPLE = "Example: --target MEL:sensitivity=0.85,specificity=0.85"
COST_EXAMPLE = "Example: --cost MEL=20 --cost BCC=5 --cost AKIEC=5 (an unneeded referral costs 1)."


class TargetPart(Frozen):
    """Required sensitivity, and optionally specificity, of one class."""

    sensitivity: Fraction
    specificity: Fraction | None = None


class CostPart(Frozen):
    """Either `missed` (cost of a benign decision on each malignant class) or a full `matrix`."""

    missed: dict[str, NonNegative] | None = None
    unneeded: NonNegative = 1.0
    matrix: list[list[float]] | None = None


class PolicyFile(Frozen):
    """The YAML of `skinlesion calibrate --policy-file`; every key is also an option."""

    policy: str = FitSettings.policy
    probabilities: Method | None = None
    targets: dict[str, TargetPart] | None = None
    priority: tuple[str, ...] = ()
    confidence: Fraction = 0.95
    horizon: int | None = None
    costs: CostPart | None = None
    refer_ppv: Fraction = TriageSettings.refer_ppv
    refer_share: Fraction | None = None
    routine_risk: Fraction = TriageSettings.routine_risk
    coverage: Fraction = TriageSettings.coverage
    malignant_sensitivity: Fraction = FitSettings.malignant_sensitivity

    def settings(self) -> FitSettings:
        """The same in the types that `decisions` takes."""
        targets = None
        if self.targets is not None:
            targets = tuple(
                Target(name, part.sensitivity, part.specificity) for name, part in self.targets.items()
            )
        costs = None
        if self.costs is not None:
            matrix = self.costs.matrix
            costs = Costs(
                self.costs.missed or {},
                self.costs.unneeded,
                None if matrix is None else tuple(map(tuple, matrix)),
            )
        return FitSettings(
            policy=self.policy,
            probability_method=self.probabilities,
            targets=targets,
            priority=self.priority,
            guarantee=GuaranteeSettings(self.confidence, self.horizon),
            costs=costs,
            triage=TriageSettings(self.refer_ppv, self.refer_share, self.routine_risk, self.coverage),
            malignant_sensitivity=self.malignant_sensitivity,
        )


def load_policy(
    file: Path | None,
    *,
    overrides: Mapping[str, Any] | None = None,
    targets: Sequence[str] = (),
    costs: Sequence[str] = (),
) -> FitSettings:
    """Settings of a calibration: those of the file, overridden by the options that are not None.

    Raises
    ------
    UsageError : naming every unknown key and every bad value. Whether the classes that are named exist is
        only known where the class list is: `policies.registry.policy_of` checks that.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values = yaml_mapping(file)
    if targets:
        values["targets"] = dict(parse_target(text) for text in targets)
    if costs:
        values["costs"] = {
            "missed": dict(parse_cost(text) for text in costs if not text.startswith("unneeded="))
        }
        for text in costs:
            if text.startswith("unneeded="):
                values["costs"]["unneeded"] = parse_cost(text)[1]
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        settings = PolicyFile.model_validate(values).settings()
    except ValidationError as error:
        lines = problems(error, PolicyFile.model_fields)
        raise UsageError(
            "the calibration settings cannot be used:\n" + "\n".join(f"  {line}" for line in lines),
            "Known settings: " + ", ".join(PolicyFile.model_fields),
        ) from None
    named_policy(settings.policy)
    return settings


def parse_target(text: str) -> tuple[str, dict[str, float]]:
    """`MEL:sensitivity=0.85,specificity=0.85` to its parts."""
    name, separator, rest = text.partition(":")
    parts = [part.partition("=") for part in rest.split(",")]
    known = {"sensitivity", "specificity"}
    keys = [key.strip() for key, _, _ in parts]
    if not separator or not set(keys) <= known or "sensitivity" not in keys or len(set(keys)) < len(keys):
        raise UsageError(f"--target {text!r}: expected CLASS:sensitivity=..,specificity=..", TARGET_EXAMPLE)
    return name.strip(), {
        key: _number(value, f"--target {text!r}") for key, (_, _, value) in zip(keys, parts, strict=True)
    }


def parse_cost(text: str) -> tuple[str, float]:
    """`MEL=20` to its parts."""
    name, separator, value = text.partition("=")
    if not separator:
        raise UsageError(f"--cost {text!r}: expected CLASS=COST", COST_EXAMPLE)
    return name.strip(), _number(value, f"--cost {text!r}")


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{where}: {text!r} is not a number") from None
