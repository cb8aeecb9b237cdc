"""Every threshold policy by name. To add one: a module with a `find` function, and a line in `POLICIES`."""

from __future__ import annotations

from skinlesion_cli.decisions.calibration import Method
from skinlesion_cli.decisions.policies import cost, guaranteed, none, published
from skinlesion_cli.decisions.policies.base import Policy
from skinlesion_cli.decisions.settings import DEFAULT_ALARMS, PUBLISHED_TARGETS, FitSettings, Target
from skinlesion_cli.errors import UsageError

POLICIES: dict[str, Policy] = {
    "guaranteed": Policy(guaranteed.find, targets=DEFAULT_ALARMS, overrides=False),
    # The published search runs on plain probabilities.
    "published": Policy(
        published.find, check=published.check, targets=PUBLISHED_TARGETS, probability_method="none"
    ),
    "cost": Policy(cost.find, check=cost.check),
    # A temperature leaves the order of the classes, and so the argmax, as it is.
    "none": Policy(none.find, probability_method="temperature"),
}

CALIBRATED, ARGMAX = "calibrated", "argmax"
DECISIONS = (CALIBRATED, ARGMAX)


def policy_of(settings: FitSettings) -> Policy:
    """The policy that these settings name.

    Raises
    ------
    UsageError : there is no such policy, or it cannot work with these settings.
    """
    if settings.policy not in POLICIES:
        raise UsageError(f"no policy named {settings.policy!r}", "Known: " + ", ".join(POLICIES))
    policy = POLICIES[settings.policy]
    policy.check(settings)
    return policy


def probability_method(settings: FitSettings) -> Method:
    """The probability calibration in use: the one asked for, or the policy's own."""
    return settings.probability_method or policy_of(settings).probability_method


def targets_of(settings: FitSettings) -> tuple[Target, ...]:
    """What is aimed at: the targets asked for, or the policy's own; none where it follows no target."""
    policy = policy_of(settings)
    if policy.targets is None:
        return ()
    return policy.targets if settings.targets is None else settings.targets
