"""The onnxruntime runtime: an exported network on the CPU, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.exports import DETAIL, FEATURES, INPUT, LOGITS, METADATA
from skinlesion_cli.inference.runtimes.base import Outputs, deviation, metadata_input, one_by_one

_FOLDER_OF_FILES = "session.model_external_initializers_file_folder_path"
_NO_FOLDER = "/no folder"


class OnnxRuntime:
    """Runs an exported network: inputs `pixels` uint8 (n, s, s, 3) and, of a network with a branch for
    it, `metadata` float32 (n, n_columns); outputs `logits`, `features` and
    `detail` (which older exports lack).

    One thread per call, and calls from several threads at once: on n cores, n images side by side are faster
    than one image on n cores, and the result does not depend on the number of threads. `weights` are the
    tensors that the graph refers to, by name.
    """

    def __init__(
        self, model: bytes, name: str = "onnx", weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        import onnxruntime

        self.name = name

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if weights:
            # Tensors that were verified, not what lies now where the graph says.
            options.add_external_initializers(
                list(weights), [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
            )
        # A graph from elsewhere may name other files: none is read.
        options.add_session_config_entry(_FOLDER_OF_FILES, _NO_FOLDER)
        self.session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._has_detail = DETAIL in [output.name for output in self.session.get_outputs()]
        widths = [given.shape[1] for given in self.session.get_inputs() if given.name == METADATA]
        self._n_metadata: int = widths[0] if widths else 0

    def logits(self, images: np.ndarray, metadata: np.ndarray | None = None) -> np.ndarray:
        """Logits, float32 (n, n_classes), of pixels uint8 (n, s, s, 3)."""
        return self._run([LOGITS], images, metadata)[0]

    def logits_and_features(
        self, images: np.ndarray, metadata: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, n_classes) and the last feature map (n, n_features, h, w), float32, of one forward
        pass.
        """
        logits, features = self._run([LOGITS, FEATURES], images, metadata)
        return logits, features

    def outputs(self, images: np.ndarray, metadata: np.ndarray | None = None) -> Outputs:
        """All outputs of one forward pass; an export without `detail` has that of the last features."""
        if not self._has_detail:
            logits, features = self.logits_and_features(images, metadata)
            return Outputs(logits, features, deviation(features))
        return Outputs(*self._run([LOGITS, FEATURES, DETAIL], images, metadata))

    def _run(
        self, outputs: list[str], images: np.ndarray, metadata: np.ndarray | None
    ) -> tuple[np.ndarray, ...]:
        def forward(image: np.ndarray, row: np.ndarray | None) -> tuple[np.ndarray, ...]:
            given = {INPUT: image} if row is None else {INPUT: image, METADATA: row}
            return tuple(self.session.run(outputs, given))

        return one_by_one(forward, images, metadata_input(metadata, len(images), self._n_metadata, self.name))
