"""Every threshold policy by name. To add one: a module with a `find` function, and a line in `POLICIES`."""

from __future__ import annotations

from skinlesion_cli.decisions.policies import cost, guaranteed, none, published
from skinlesion_cli.decisions.policies.base import Policy
from skinlesion_cli.decisions.settings import FitSettings, Target, require_targets
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import ClassList

POLICIES: dict[str, Policy] = {
    "guaranteed": Policy(
        guaranteed.find,
        check=guaranteed.check,
        follows_targets=True,
        default_targets=guaranteed.default_targets,
        overrides=False,
    ),
    # The published search runs on plain probabilities.
    "published": Policy(
        published.find,
        check=published.check,
        follows_targets=True,
        default_targets=published.default_targets,
        probability_method="none",
    ),
    "cost": Policy(cost.find, check=cost.check),
    # A temperature leaves the order of the classes, and so the argmax, as it is.
    "none": Policy(none.find, probability_method="temperature"),
}

CALIBRATED, ARGMAX = "calibrated", "argmax"
DECISIONS = (CALIBRATED, ARGMAX)


def named_policy(name: str) -> Policy:
    """A policy by its name.

    Raises
    ------
    UsageError : there is no such policy.
    """
    if name not in POLICIES:
        raise UsageError(f"no policy named {name!r}", "Known: " + ", ".join(POLICIES))
    return POLICIES[name]


def policy_of(settings: FitSettings, classes: ClassList) -> Policy:
    """The policy that these settings name.

    Raises
    ------
    UsageError : there is no such policy, it cannot work with these settings or classes, or a target is of no
        class.
    """
    policy = named_policy(settings.policy)
    require_targets(settings.targets or (), classes)
    policy.check(settings, classes)
    return policy


def targets_of(settings: FitSettings, classes: ClassList) -> tuple[Target, ...]:
    """What is aimed at: the targets asked for, or the policy's own; none where it follows no target."""
    policy = policy_of(settings, classes)
    if not policy.follows_targets:
        return ()
    return policy.default_targets(classes) if settings.targets is None else settings.targets
