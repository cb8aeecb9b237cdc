"""Triaged and explained images from the bundled model: what `make demo` runs.

The example images are drawn, not photographs, so what the model says of them means nothing.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def skinlesion(*arguments: object) -> None:
    """Run one command, shown as a user would type it."""
    shown = " ".join(str(argument) for argument in arguments)
    print(f"\n$ skinlesion {shown}", flush=True)
    code = subprocess.run([sys.executable, "-m", "skinlesion_cli", *map(str, arguments)]).returncode
    if code:
        sys.exit(f"`skinlesion {shown}` ended with exit code {code}")


def main() -> None:
    """Predict the example images into the folder given."""
    started = time.monotonic()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output")
    table = folder / "predictions.csv"
    folder.mkdir(parents=True, exist_ok=True)
    skinlesion(
        *("predict", HERE / "images", "--model", "builtin", "--cam", "--report"),
        *("--output", table, "--overwrite"),
    )
    print(f"\n{table}:")
    for line in table.read_text(encoding="utf-8").splitlines()[:4]:
        print("  " + line)
    overlay = sorted(table.with_name("predictions-cam").rglob("*.png"))[0]
    print(f"\nAn overlay: {overlay}\nThe report, for a browser: {table.with_name('predictions-report.html')}")
    print(f"Took {time.monotonic() - started:.0f} s. The images are drawn: the results mean nothing.")


if __name__ == "__main__":
    main()
