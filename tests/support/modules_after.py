"""Runs one command in this process, then prints which of the heavy libraries it has loaded.

python tests/support/modules_after.py predict image.jpg -o out.csv
"""

from __future__ import annotations

import sys

from skinlesion_cli.cli.app import main

HEAVY = ("torch", "torchvision", "timm", "albumentations", "pytorch_grad_cam", "onnx", "onnxscript", "pandas")

if __name__ == "__main__":
    try:
        main()
    except SystemExit as finished:
        if finished.code:
            raise
    sys.stdout.write(f"loaded: {' '.join(name for name in HEAVY if name in sys.modules)}\n")
