"""The onnxruntime runtime: an exported network on the CPU, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from skinlesion_cli.inference.runtimes.base import FEATURES, INPUT, LOGITS, one_by_one


class OnnxRuntime:
    """Runs an exported network: input `pixels` uint8 (n, s, s, 3), outputs `logits` and `features`.

    One thread per call, and calls from several threads at once: on n cores, n images side by side are faster
    than one image on n cores, and the result does not depend on the number of threads.
    """

    def __init__(self, model: Path | bytes, name: str = "onnx") -> None:
        import onnxruntime

        self.name = name

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session: Any = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 (n, 7), of pixels uint8 (n, s, s, 3)."""
        return self._run([LOGITS], images)[0]

    def logits_and_features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, 7) and the last feature map (n, n_features, h, w), float32, of one forward pass."""
        logits, features = self._run([LOGITS, FEATURES], images)
        return logits, features

    def _run(self, outputs: list[str], images: np.ndarray) -> tuple[np.ndarray, ...]:
        return one_by_one(lambda image: tuple(self.session.run(outputs, {INPUT: image})), images)
