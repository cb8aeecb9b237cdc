"""Feed every reader with mutated input for a while: `python -m tests.fuzzing.run --seconds 3600`.

Hypothesis makes the random choices, so that a defect that is found is shrunk and can be repeated. An
execution has to end in a result or a `SkinLesionError`, within `MOST_S` seconds, and without the process
growing by `MOST_BYTES`. Prints how many executions each reader had,
and ends with exit code 1 where a defect was found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from skinlesion_cli.errors import ExitCode, SkinLesionError
from tests.fuzzing.targets import TARGETS, Target

MOST_S = 20.0
MOST_BYTES = 1 << 30
_ROUND = 100


class TookTooLong(BaseException):
    """One execution did not end in time."""


@dataclass
class Findings:
    """`executions` and `refused` by target; `defects` are the tracebacks, one for each target and place."""

    executions: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    defects: dict[str, str] = field(default_factory=dict)


def _memory_bytes(entry: str) -> int:
    """`VmRSS`, or `VmHWM`: the most that it was since `_forget_peak`. Elsewhere than on Linux:
    the most ever.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = (line for line in status.splitlines() if line.startswith(f"{entry}:"))
    return int(line.split()[1]) * 1024


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise TookTooLong(f"an execution took more than {MOST_S:g} s")


def execute(name: str, target: Target, source: random.Random, findings: Findings) -> None:
    """One execution; raises where the target does not keep to what is expected of it."""
    findings.executions[name] += 1
    _forget_peak()
    before, started = _memory_bytes("VmRSS"), time.monotonic()
    previous = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, MOST_S)
    try:
        target(source)
    except SkinLesionError as error:
        findings.refused[name] += 1
        if not error.message or error.exit_code not in (ExitCode.FAILURE, ExitCode.USAGE, ExitCode.ARTIFACT):
            raise AssertionError(f"no message, or exit code {error.exit_code}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    # What the system did beside it is no fault of the target: only what it cannot be is counted.
    assert time.monotonic() - started < 2 * MOST_S
    grown = _memory_bytes("VmHWM") - before
    assert grown < MOST_BYTES, f"the process grew by {grown:,} bytes"


def fuzz(
    seconds: float, first_seed: int = 0, names: list[str] | None = None, most: int | None = None
) -> Findings:
    """Rounds of every target in turn until the time is over; with `most`,
    one round of so many executions each,
    whose defects are not shrunk.
    """
    findings = Findings()
    ends = time.monotonic() + seconds
    number = first_seed
    while time.monotonic() < ends:
        for name in names or TARGETS:
            if time.monotonic() >= ends:
                break
            _one_round(name, number, findings, ends, most or _ROUND, shrink=most is None)
        if most is not None:
            break
        number += 1
    return findings


def _one_round(
    name: str, number: int, findings: Findings, ends: float, executions: int, *, shrink: bool
) -> None:
    target = TARGETS[name]

    @seed(number)
    @settings(
        max_examples=executions,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(st.randoms(use_true_random=True))
    def run(source: random.Random) -> None:
        if time.monotonic() < ends:
            execute(name, target, source, findings)

    try:
        run()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        key = f"{name}: {type(error).__name__} in {place.filename}:{place.lineno}"
        findings.defects.setdefault(key, f"seed {number}\n" + "".join(traceback.format_exception(error)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Feed every reader with mutated input.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--most", type=int, help="one round of so many executions for each target")
    parser.add_argument("--json", type=Path, help="also write the findings into this file")
    given_arguments = parser.parse_args()
    findings = fuzz(
        given_arguments.seconds, given_arguments.seed, given_arguments.target, given_arguments.most
    )
    if given_arguments.json:
        given_arguments.json.write_text(json.dumps(vars(findings)), "utf-8")
    for name, count in findings.executions.items():
        print(f"{count:9,} executions, {findings.refused[name]:9,} refused: {name}")
    print(f"{findings.executions.total():9,} executions in all; {len(findings.defects)} defects")
    for key, shown in findings.defects.items():
        print(f"\n== {key}\n{shown}", file=sys.stderr)
    return 1 if findings.defects else 0


if __name__ == "__main__":
    sys.exit(main())
