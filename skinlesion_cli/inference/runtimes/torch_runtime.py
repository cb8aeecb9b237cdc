"""The torch runtime: the trained network itself, in channels-last memory order."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class TorchRuntime:
    """Runs a network whose input is pixels (n, s, s, 3) and which offers `features` and `logits`."""

    name = "torch"

    def __init__(self, network: nn.Module, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 (n, 7), of pixels uint8 (n, s, s, 3)."""
        return self.logits_and_features(images)[0]

    def logits_and_features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, 7) and the last feature map (n, n_features, h, w), float32, of one forward pass."""
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            features = self.network.features(pixels)  # type: ignore[operator]
            logits = self.network.logits(features)  # type: ignore[operator]
            return logits.float().cpu().numpy(), features.float().cpu().numpy()
