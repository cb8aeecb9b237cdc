"""What can be chosen when a decision rule is fitted, and the defaults of it all."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from skinlesion_cli.decisions.calibration import Method
from skinlesion_cli.decisions.thresholds import DEFAULT_PRIORITY
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES

DEFAULT_COVERAGE = 0.90
DEFAULT_MALIGNANT_SENSITIVITY = 0.90


@dataclass(frozen=True)
class Target:
    """What is wanted of one class, one against the rest; both in [0, 1]. None: no floor."""

    class_name: str
    sensitivity: float
    specificity: float | None = None

    def __post_init__(self) -> None:
        if self.class_name not in CLASS_INDEX:
            raise UsageError(
                f"no class named {self.class_name!r}", "Known classes: " + ", ".join(CLASS_NAMES)
            )
        for name, value in (("sensitivity", self.sensitivity), ("specificity", self.specificity)):
            if value is not None and not 0.0 < value < 1.0:
                raise UsageError(
                    f"{self.class_name}: {name} {value} must be between 0 and 1",
                    "Give a share such as 0.85; 1 can never be guaranteed.",
                )

    @property
    def class_index(self) -> int:
        return CLASS_INDEX[self.class_name]


DEFAULT_TARGETS: tuple[Target, ...] = (Target("MEL", 0.85, 0.85), Target("AKIEC", 0.75, 0.70))


@dataclass(frozen=True)
class GuaranteeSettings:
    """`confidence` that all guarantees hold together.

    `horizon` : new lesions of a class that a guarantee will be judged on; None: as many as it rests on.
    `max_bacc_loss` : what all thresholds together may cost in balanced accuracy through the sensitivity of
    the other classes; what one class leaves of its share the next may use. A guarantee that costs more is
    refused. None: no limit.
    """

    confidence: float = 0.95
    horizon: int | None = None
    max_bacc_loss: float | None = 0.05

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1.0:
            raise UsageError(
                f"confidence must be in [0.5, 1), got {self.confidence}", "Example: --confidence 0.95"
            )


@dataclass(frozen=True)
class FitSettings:
    """How to calibrate; `policies.registry.policy_of` says whether the policy can work with it.

    `policy` : a name in `policies.registry.POLICIES`. `probability_method` None: the policy's own.
    `costs` : (7, 7), only for the policy `cost`.
    """

    policy: str = "guaranteed"
    probability_method: Method | None = None
    targets: tuple[Target, ...] = DEFAULT_TARGETS
    priority: tuple[str, ...] = DEFAULT_PRIORITY
    guarantee: GuaranteeSettings = field(default_factory=GuaranteeSettings)
    costs: np.ndarray | None = None
    coverage: float = DEFAULT_COVERAGE
    malignant_sensitivity: float = DEFAULT_MALIGNANT_SENSITIVITY
