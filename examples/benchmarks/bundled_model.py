"""What a newcomer waits for, with the bundled model: the first row of a cold process, many images, memory.

Through onnxruntime, which predicts by default, and through torch, as earlier versions did; each in processes
of its own, one after the other in turn.

    python examples/benchmarks/bundled_model.py WORK_FOLDER --images 500
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import common

WAYS = ("onnx", "torch")


def main() -> None:
    """Run both ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="of the first row; the least counts")
    options = parser.parse_args()
    paths = common.images(options.folder / "images-224", options.images, 224, 224)
    names = options.folder / f"bundled-{options.images}.txt"
    names.write_text("".join(f"{path}\n" for path in paths))
    model = ("--model", "builtin")
    first_row_s: dict[str, float] = dict.fromkeys(WAYS, float("inf"))
    for _ in range(options.rounds):
        for way in WAYS:
            run = common.predict(paths[0], "-o", "-", "--runtime", way, *model, wait_for_line=True)
            first_row_s[way] = min(first_row_s[way], run.first_line_s)
    whole: dict[str, Any] = {}
    for way in WAYS:
        output = options.folder / f"bundled-{way}.csv"
        whole[way] = common.predict(f"@{names}", "-o", output, "--runtime", way, *model, "--overwrite")
        assert sum(1 for _ in output.open()) == options.images + 1
    common.report(
        images=options.images,
        first_row_s={way: round(seconds, 2) for way, seconds in first_row_s.items()},
        seconds={way: round(run.seconds, 1) for way, run in whole.items()},
        times_faster=whole["torch"].seconds / whole["onnx"].seconds,
        peak_mib={way: round(run.peak_mib) for way, run in whole.items()},
    )


if __name__ == "__main__":
    main()
