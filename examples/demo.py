"""From nothing to triaged, explained images: what `make demo` runs.

Until a trained model ships with the package, this trains a small one on generated images, and so its results
mean nothing for real ones. It goes on where it was cut, and a second run predicts at once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import make_images

HERE = Path(__file__).resolve().parent
# Enough for a light network, ImageNet weights and 7 drawn classes.
RECIPE = ["input_size_px=96", "progressive_sizes_px=[]", "harmonise_px=null", "cache_size_px=104", "epochs=4"]


def skinlesion(*arguments: object) -> None:
    """Run one command, shown as a user would type it."""
    shown = " ".join(str(argument) for argument in arguments)
    print(f"\n$ skinlesion {shown}", flush=True)
    code = subprocess.run([sys.executable, "-m", "skinlesion_cli", *map(str, arguments)]).returncode
    if code:
        sys.exit(f"`skinlesion {shown}` ended with exit code {code}")


def main() -> None:
    """Run the whole pipeline in the folder given."""
    started = time.monotonic()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output")
    workspace, generated = folder / "workspace", folder / "generated"
    at = ("--workspace", workspace)
    if not (workspace / "calibration" / "calibration.json").exists():
        print("No trained model yet: training a small one on generated images.", flush=True)
        make_images.make(generated, 420, seed=7, width=150, height=112, official=True)
        skinlesion("download", "--from", generated, "--split", "grouped", *at)
        settings = [word for setting in RECIPE for word in ("--set", setting)]
        skinlesion("train", "--arch", "efficientnet_lite0", *settings, *at)
        skinlesion("ensemble", *at)
        skinlesion("calibrate", "--policy", "published", *at)
    skinlesion("predict", HERE / "images", "--cam", "--output", folder / "predictions.csv", *at)
    print(f"\n{folder / 'predictions.csv'}:")
    for line in (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()[:4]:
        print("  " + line)
    print(
        f"\nTook {time.monotonic() - started:.0f} s. Look at {folder / 'predictions-cam'} for the overlays."
    )
    print("The model was trained on drawn images and knows nothing of real lesions.")


if __name__ == "__main__":
    main()
