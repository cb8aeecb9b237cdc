"""The `skinlesion` command as a whole: all its sub-commands, and its signals."""

from __future__ import annotations

import os
import signal
import sys

# Imported for their registration, in the order of `skinlesion --help`, which is that of the work. Each file
# imports its stage, and with it torch, only when it runs.
# isort: off
from skinlesion_cli.cli import (  # noqa: F401
    download,
    train,
    average,
    ensemble,
    calibrate,
    evaluate,
    gate,
    predict,
    merge,
    explain,
    select,
    info,
    doctor,
    bench,
    export,
    pack,
)

# isort: on
from skinlesion_cli.cli.boundary import INTERRUPTED
from skinlesion_cli.cli.root import app, is_first_process
from skinlesion_cli.cli.terminal import open_standard_streams, say
from skinlesion_cli.errors import ExitCode, Interruption


def _raise_interruption(number: int, _frame: object) -> None:
    # A second signal ends the process at once: clean-up that hangs must not hold the user.
    signal.signal(number, signal.SIG_DFL)
    raise Interruption(ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED)


def main() -> None:
    """Entry point of the console script."""
    open_standard_streams()
    signal.signal(signal.SIGINT, _raise_interruption)
    signal.signal(signal.SIGTERM, _raise_interruption)
    try:
        app()
    except Interruption as interruption:
        if is_first_process(os.environ):
            say(INTERRUPTED)
        # Not sys.exit: worker threads and processes must not keep an interrupted command alive.
        sys.stdout.flush()
        sys.exit(int(interruption.exit_code))
