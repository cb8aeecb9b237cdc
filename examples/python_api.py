"""Predict from Python: files, bytes and arrays, with what the model says of each.

    python examples/python_api.py builtin examples/images/GEN_0000000.jpg examples/images/GEN_0000001.jpg

The first argument is `builtin`, a workspace, or the folder of a packed model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from skinlesion_cli import Classifier


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit("usage: python_api.py MODEL IMAGE...")
    model, *paths = sys.argv[1:]
    # Loaded once: reading the networks takes longer than an image does.
    classifier = Classifier.load(model)
    for prediction in classifier.predict(paths):
        if prediction.probabilities is None:
            # No default stands in for a result that is not there.
            print(f"{prediction.source}: not read ({prediction.error})")
            continue
        likely = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{name} {probability:.2f}" for name, probability in likely)
        print(f"{prediction.source}: {prediction.decision}, {prediction.triage} ({shown})")

    # What is in memory already needs no file: encoded bytes, or uint8 RGB arrays (height, width, 3).
    data = Path(paths[0]).read_bytes()
    from_file, from_bytes = classifier.predict([paths[0], data])
    assert from_bytes.probabilities == from_file.probabilities
    if from_file.error is None:
        with Image.open(paths[0]) as image:
            (from_array,) = classifier.predict([np.asarray(image.convert("RGB"))])
        assert from_array.probabilities is not None
        print(f"as bytes and as an array: {from_bytes.decision}, {from_array.decision}")


if __name__ == "__main__":
    main()
