"""The rules of triage that a calibration holds, as sentences, in the order in which they apply."""

from __future__ import annotations

from dataclasses import dataclass

from skinlesion_cli.decisions.levels import REFER, REVIEW, ROUTINE
from skinlesion_cli.decisions.reasons import alarm_title
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.taxonomy import MALIGNANT, ClassList


@dataclass(frozen=True)
class LevelRule:
    """When an image gets a level: `conditions`, any of which is enough; without any, all other images."""

    level: str
    conditions: tuple[str, ...]
    remark: str = ""

    @property
    def sentence(self) -> str:
        """All of it after the name of the level, without a full stop.

        >>> LevelRule("refer", ("a is above 1", "b is below 2")).sentence
        'a is above 1, or b is below 2'
        """
        said = ", or ".join(self.conditions) if self.conditions else "all other images"
        return f"{said}; {self.remark}" if self.remark else said


def triage_policy(rule: DecisionRule, *, has_gate: bool) -> tuple[LevelRule, ...]:
    """How a rule triages: the first level whose conditions an image meets is its level.

    `has_gate`: the model has a quality gate, so that images can be flagged. Empty where no class is
    malignant.
    """
    if not rule.classes.has_malignant:
        return ()
    flagged = ("the quality gate flags the image",) if has_gate else ()
    rest = LevelRule(ROUTINE, (), "not an all-clear")
    if rule.levels is None:
        return _former_policy(rule, flagged, rest)
    refer, routine = rule.levels.refer_above, rule.levels.routine_at_most
    if routine < 0.0:
        # Nothing can be guaranteed of `routine`, so that nothing is.
        review = LevelRule(REVIEW, (), "with this calibration no image is routine")
        return LevelRule(REFER, (f"the malignant probability is above {refer:.3f}",)), review
    conditions = (
        f"the malignant probability is above {routine:.3f}",
        *(_alarm(name, theta, rule.classes) for name, theta in rule.alarms.items()),
        f"the decided class is {_either(rule.classes.malignant_codes)}",
        *_plausible(rule),
        *flagged,
    )
    return (
        LevelRule(REFER, (f"the malignant probability is above {refer:.3f}",)),
        LevelRule(REVIEW, conditions),
        rest,
    )


def _either(codes: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(codes[:-1]), codes[-1])))


def _alarm(name: str, theta: float, classes: ClassList) -> str:
    of = "malignant" if name == MALIGNANT else name
    return f"the {alarm_title(name, classes)} alarm fires ({of} probability above {theta:.3f})"


def _plausible(rule: DecisionRule) -> tuple[str, ...]:
    if not rule.conformal_minimum:
        return ()
    minima = ", ".join(
        f"{entry.code} from {minimum:.3f}"
        for entry, minimum in zip(rule.classes.entries, rule.conformal_minimum, strict=True)
        if entry.malignant
    )
    return (f"a malignant class is plausible ({minima})", "no class is plausible")


def _former_policy(rule: DecisionRule, flagged: tuple[str, ...], rest: LevelRule) -> tuple[LevelRule, ...]:
    refer = [f"the decided class is {_either(rule.classes.malignant_codes)}"]
    if rule.malignant_threshold is not None:
        refer.append(f"the malignant probability is above {rule.malignant_threshold:.3f}")
    review = list(flagged)
    if rule.conformal_minimum:
        review += [
            "benign and malignant classes are both plausible",
            "no class is plausible",
            "only malignant classes are plausible and none of the conditions of refer holds",
        ]
    levels = [LevelRule(REVIEW, tuple(review))] if review else []
    return (*levels, LevelRule(REFER, tuple(refer)), rest)


def policy_lines(rule: DecisionRule, *, has_gate: bool) -> list[str]:
    """The policy as lines of text, one per level, in order."""
    return [f"{each.level}: {each.sentence}" for each in triage_policy(rule, has_gate=has_gate)]
