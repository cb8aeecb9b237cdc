"""What can be chosen when a decision rule is fitted, and the defaults of it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skinlesion_cli.decisions.calibration import Method
from skinlesion_cli.errors import UsageError, unknown_name
from skinlesion_cli.taxonomy import ClassList


@dataclass(frozen=True)
class Target:
    """What is wanted of one class, or of `malignant`, one against the rest; both in (0, 1). None: no
    floor.
    """

    class_name: str
    sensitivity: float
    specificity: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("sensitivity", self.sensitivity), ("specificity", self.specificity)):
            if value is not None and not 0.0 < value < 1.0:
                raise UsageError(
                    f"{self.class_name}: {name} {value} must be between 0 and 1",
                    "Give a share such as 0.85; 1 can never be guaranteed.",
                )


def require_targets(targets: Sequence[Target], classes: ClassList) -> None:
    """Refuse targets of what the list does not have.

    Raises
    ------
    UsageError : naming the first, and what targets can be set for.
    """
    for target in targets:
        if target.class_name not in classes.targets():
            raise UsageError(
                unknown_name(target.class_name, classes.targets()), f"Classes: {classes.described}."
            )


@dataclass(frozen=True)
class Costs:
    """What wrong decisions cost; `matrix` (see `policies.cost.checked_costs`), or made from the rest.

    `missed` : malignant class -> cost of deciding a benign class on it. `unneeded` : of deciding a malignant
    class on a benign lesion.
    """

    missed: Mapping[str, float] = field(default_factory=dict)
    unneeded: float = 1.0
    matrix: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class GuaranteeSettings:
    """`confidence` that all guarantees hold together, for the population that the lesions come from.

    `horizon` : new lesions of a class that the second figure of each guarantee is for; None: as many as were
    seen.
    """

    confidence: float = 0.95
    horizon: int | None = None

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1.0:
            raise UsageError(
                f"confidence must be in [0.5, 1), got {self.confidence}", "Example: --confidence 0.95"
            )


@dataclass(frozen=True)
class TriageSettings:
    """Where the levels of triage lie, as shares of photographs, each lesion counting once.

    `refer_ppv` : of those referred, at least this share is malignant, guaranteed. `refer_share` : instead,
    refer the images with the highest malignant probability, this share of all: a clinic's capacity.
    `routine_risk` : of those in `routine`, at most this share is malignant, guaranteed.
    `coverage` : of the conformal sets, class by class.
    """

    refer_ppv: float = 0.70
    refer_share: float | None = None
    routine_risk: float = 0.01
    coverage: float = 0.90

    def __post_init__(self) -> None:
        for name in ("refer_ppv", "refer_share", "routine_risk", "coverage"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < 1.0:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} must be between 0 and 1, got {value}", f"Example: {option} 0.15")


@dataclass(frozen=True)
class FitSettings:
    """How to calibrate; `policies.registry.policy_of` says whether the policy can work with it.

    `policy` : a name in `policies.registry.POLICIES`. `probability_method`, `targets` None: the policy's own.
    `priority` : of the classes whose thresholds override the decision; empty: that of
    `policies.published.default_priority`.
    `malignant_sensitivity` : of the alarm on the malignant probability, where no target is given for it.
    `costs` : only for the policy `cost`.
    """

    policy: str = "guaranteed"
    probability_method: Method | None = None
    targets: tuple[Target, ...] | None = None
    priority: tuple[str, ...] = ()
    guarantee: GuaranteeSettings = field(default_factory=GuaranteeSettings)
    triage: TriageSettings = field(default_factory=TriageSettings)
    costs: Costs | None = None
    malignant_sensitivity: float = 0.90

    def each_confidence(self, n_alarms: int) -> float:
        """The confidence of each guarantee, so that all hold together: those of the alarms, and of two
        levels.
        """
        return 1.0 - (1.0 - self.guarantee.confidence) / (n_alarms + 2)
