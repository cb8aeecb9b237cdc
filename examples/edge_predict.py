"""Predict photographs with a LiteRT network as a program on a phone would: without torch, without skinlesion.

    skinlesion export --format litert
    python examples/edge_predict.py skinlesion-workspace/models/NAME/edge/NAME.tflite photo.jpg [...]

Needs ai-edge-litert, numpy and Pillow. All it has to know stands in NAME.litert.json beside the network. It
gives one network's probabilities of one view: not those of the ensemble, not calibrated, without triage.
Research use only.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps


def load(model: Path) -> tuple[Interpreter, dict]:
    """The network, verified, and what has to be known of it."""
    card = json.loads(model.with_suffix(".litert.json").read_text(encoding="utf-8"))
    if hashlib.sha256(model.read_bytes()).hexdigest() != card["body"]["files"][model.name]:
        sys.exit(f"{model} is not the file that was exported")
    network = Interpreter(model_path=str(model), num_threads=1)
    network.allocate_tensors()
    return network, card


def pixels(photo: Path, preprocessing: dict) -> np.ndarray:
    """A photograph, upright, squeezed to the training's sizes in turn: float32 (1, 3, s, s) in [0, 1]."""
    image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    for name in ("harmonise_px", "field_px", "input_size_px"):
        if (size := preprocessing.get(name)) and image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / np.float32(255)


def probabilities(network: Interpreter, image: np.ndarray) -> np.ndarray:
    """Softmax of the network's logits, float64 (7,)."""
    network.set_tensor(network.get_input_details()[0]["index"], np.ascontiguousarray(image))
    network.invoke()
    logits = network.get_tensor(network.get_output_details()[0]["index"])[0].astype(np.float64)
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit((__doc__ or "").strip())
    network, card = load(Path(sys.argv[1]))
    for photo in sys.argv[2:]:
        values = probabilities(network, pixels(Path(photo), card["preprocessing"]))
        first = int(values.argmax())
        print(f"{photo}: {card['class_order'][first]} {values[first]:.4f}")


if __name__ == "__main__":
    main()
