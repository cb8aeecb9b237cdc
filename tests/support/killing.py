"""Kill a command at many moments and say what it left: `python killing.py WHOLE KILLED FOLDER COMMAND ...`.

Runs `skinlesion COMMAND ... -w WHOLE` unbroken, and the same with `-w KILLED` again and again, each time
killed (SIGKILL, which no process can catch): once before every step in which a file takes its final name,
then at random moments. After each kill everything with a final name in FOLDER must be whole. The last run is
left alone. Writes how many runs were killed.

One process for all: what it has imported is there in every fork, so that a run takes no longer than its work.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from skinlesion_cli.artifacts import envelope, files
from skinlesion_cli.cli.app import main

RANDOM_KILLS = 8


def command(arguments: list[str]) -> None:
    sys.argv = ["skinlesion", *arguments, "--quiet"]
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            main()
        except SystemExit as left:
            if left.code:
                raise


def die_before_replacement(number: int) -> None:
    """This process ends just before a file takes its final name for the `number`-th time."""
    replace, seen = os.replace, []

    def counted(*arguments: object) -> None:
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*arguments)  # type: ignore[arg-type]

    files.os.replace = counted


def killed(arguments: list[str], *, replacement: int = 0, after_s: float | None = None) -> bool:
    """Whether the run was killed; False: it came to its end before."""
    child = os.fork()
    if child == 0:
        if replacement:
            die_before_replacement(replacement)
        code = 70
        try:
            command(arguments)
            code = 0
        finally:
            os._exit(code)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def assert_whole(folder: Path) -> None:
    """Every artifact that has its final name verifies, with all of its payloads."""
    for path in folder.glob("*.json"):
        stated = json.loads(path.read_text("utf-8"))
        envelope.read_artifact(path, kind=stated["kind"], schema_version=stated["schema_version"])


if __name__ == "__main__":
    whole, broken, name, *arguments = sys.argv[1:]
    command([*arguments, "-w", whole])  # also imports what the command needs
    shutil.rmtree(Path(whole) / name)
    started = time.monotonic()
    command([*arguments, "-w", whole])
    duration_s = time.monotonic() - started
    generator = random.Random(0)
    kills = 0
    while killed([*arguments, "-w", broken], replacement=kills + 1):
        kills += 1
        assert_whole(Path(broken) / name)
    for _ in range(RANDOM_KILLS):
        kills += killed([*arguments, "-w", broken], after_s=generator.uniform(0.0, 1.1 * duration_s))
        assert_whole(Path(broken) / name)
    command([*arguments, "-w", broken])
    sys.stdout.write(f"{kills}\n")
