"""Class activation maps by name: closed forms of one forward pass, and others through pytorch-grad-cam.

The closed forms need neither torch nor a backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from skinlesion_cli.errors import UsageError
from skinlesion_cli.explain.cam import class_maps, fused_maps
from skinlesion_cli.inference.runtimes.base import Outputs

DEFAULT: Final = "fused"
# Maps (n, h, w) from what a network gives, its classifier and the classes to explain.
_CLOSED: Final[Mapping[str, Callable[[Outputs, np.ndarray, np.ndarray], np.ndarray]]] = {
    DEFAULT: fused_maps,
    "gradcam": lambda outputs, classifier, classes: class_maps(outputs.features, classifier, classes),
}
# Name -> class of pytorch_grad_cam. Grad-CAM itself is here too, for comparison with the closed form.
_CLASSES: Final = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "gradcamelementwise": "GradCAMElementWise",
    "eigengradcam": "EigenGradCAM",
    "eigencam": "EigenCAM",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
}
METHODS: Final = (*_CLOSED, *(name for name in _CLASSES if name not in _CLOSED))


def is_closed(name: str) -> bool:
    """Whether the method needs no backward pass, so that every runtime can compute it."""
    return name in _CLOSED


def closed_maps(method: str, outputs: Outputs, classifier: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Maps by a method that `is_closed`, float32 (n, h, w), >= 0, in units of the logit.

    Parameters
    ----------
    outputs : of n images. classifier : float32 (n_classes, n_features). classes : int64 (n,), the class to
        explain of each image.
    """
    return _CLOSED[method](outputs, classifier, classes)


def checked_method(name: str) -> str:
    """The name, if it is one of `METHODS`.

    Raises
    ------
    UsageError : it is not.
    """
    if name not in METHODS:
        raise UsageError(f"no method named {name!r}", "Methods: " + ", ".join(METHODS))
    return name


def library_maps(network: Any, images: np.ndarray, classes: np.ndarray, method: str) -> np.ndarray:
    """Maps of one class an image by pytorch-grad-cam, not rescaled.

    Parameters
    ----------
    network : a `LesionNet`. images : uint8 (n, s, s, 3). classes : int64 (n,).

    Returns
    -------
    float32 (n, h, w), >= 0, on the grid of the last features; the unit is the method's own.

    Raises
    ------
    FloatingPointError : the network or the method gave NaN or infinity.
    """
    import torch

    # Some methods draw a bar for every image.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    name = network.spec.cam_layer
    layer = network.backbone.get_submodule(name) if name else network.last_map
    # One target an image: with fewer, the library leaves the maps of the other images all zero.
    targets = [ClassifierOutputTarget(int(index)) for index in classes]
    # Its `with` block would swallow an IndexError, so the hooks are taken off by hand.
    with torch.inference_mode(False), torch.enable_grad():
        cam = _unscaled(method)(_ChannelsFirst(network), [layer])
        try:
            pixels = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
            maps = np.asarray(cam(pixels.requires_grad_(), targets), dtype=np.float32)
        finally:
            cam.activations_and_grads.release()
            network.zero_grad(set_to_none=True)
    if not np.isfinite(maps).all():
        raise FloatingPointError(f"{method} returned values that are not finite")
    return maps


def _unscaled(method: str) -> Any:
    """The library's class without its rescaling to 0..1, which would hide how strong a map is."""
    import pytorch_grad_cam

    base = getattr(pytorch_grad_cam, _CLASSES[checked_method(method)])

    class Unscaled(base):  # type: ignore[misc, valid-type]
        def compute_cam_per_layer(self, input_tensor: Any, targets: Any, eigen_smooth: bool) -> Any:
            kept = self.activations_and_grads
            activations = [a.cpu().data.numpy() for a in kept.activations]
            gradients = [g.cpu().data.numpy() for g in kept.gradients] or [None]
            return self.get_cam_image(
                input_tensor, self.target_layers[0], targets, activations[0], gradients[0], eigen_smooth
            )

        def aggregate_multi_layers(self, maps: Any) -> Any:
            return np.maximum(maps, 0.0)

    return Unscaled


def _ChannelsFirst(network: Any) -> Any:
    """The network for pixels (n, 3, s, s), as the library wants them."""
    import torch

    class Wrapped(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.network(pixels.permute(0, 2, 3, 1))

    return Wrapped().eval()
