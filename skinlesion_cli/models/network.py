"""The network around a backbone, from pixels to logits; its weights as bytes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.exports import DETAIL, FEATURES, LOGITS
from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.errors import ArtifactError, UsageError, name_items
from skinlesion_cli.models.backbones import BackboneSpec, backbone
from skinlesion_cli.models.freezing import merge_norms
from skinlesion_cli.models.timm_format import stored_options
from skinlesion_cli.models.timm_networks import create, feature_map


class LesionNet(nn.Module):  # type: ignore[misc]
    """A backbone with one logit per class that normalises its own input.

    Takes the pixels of decoded images: (n, height, width, 3), uint8 or floats in [0, 255]. The mean and
    standard deviation of the backbone's pretraining are applied inside, so that no caller can forget them.
    `n_metadata` > 0 adds a small branch for patient metadata, whose logits are added to those of the image. A
    row of zeros means that nothing is known; it is used where no metadata is given.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        spec: BackboneSpec,
        preprocessing: Preprocessing,
        *,
        n_classes: int,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        n_metadata: int = 0,
    ) -> None:
        super().__init__()
        options: dict[str, float] = {"drop_rate": drop_rate}
        if drop_path_rate:
            options["drop_path_rate"] = drop_path_rate
        self.spec = spec
        self.input_size_px = preprocessing.input_size_px
        self.drop_rate = drop_rate
        self.backbone = create(spec, preprocessing.input_size_px, n_classes, **options)
        # What class activation maps of other methods are computed from.
        self.last_map = nn.Identity()
        for module in self.backbone.modules():
            # An in-place ReLU6 has to copy its input for the backward pass.
            if isinstance(module, nn.ReLU6):
                module.inplace = False
        self.register_buffer("mean", torch.tensor(preprocessing.mean).mul(255), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).mul(255), persistent=False)
        self.metadata = (
            nn.Sequential(nn.Linear(n_metadata, 32), nn.ReLU(), nn.Linear(32, n_classes))
            if n_metadata
            else None
        )

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer: weight (n_classes, n_features)."""
        return self.backbone.get_classifier()

    @property
    def classifier_name(self) -> str:
        """Name of the classifier's weight in the state."""
        classifier = self.classifier
        (name,) = (name for name, module in self.named_modules() if module is classifier)
        return f"{name}.weight"

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Last feature map, float (n, n_features, h, w); its mean over h and w feeds the classifier."""
        return self._last_features(self._normalised(images))

    def _last_features(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.spec.cam_layer:
            return self.backbone.forward_features(pixels)
        return feature_map(self.backbone, pixels)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels (n, height, width, 3) as the backbone takes them, (n, 3, height, width)."""
        # Normalising whole rows of pixels is several times faster than broadcasting over channels, and a
        # permuted view of NHWC pixels is already in channels-last memory order.
        count, height, width = images.shape[:3]
        rows = images.reshape(count, height, width * 3).to(self.mean.dtype)
        rows = torch.addcmul((-self.mean / self.std).repeat(width), rows, (1.0 / self.std).repeat(width))
        return rows.view(count, height, width, 3).permute(0, 3, 1, 2)

    def features_and_detail(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Last feature map, and how much each place of a finer one differs from the rest of the image.

        `detail`, float (n, 2 h, 2 w), >= 0, is the Euclidean distance of the features at a place from their
        mean over the image, in the last layer that has a place for every 16 x 16 pixels. A backbone without
        such a layer has that of the last features, (n, h, w).
        """
        layers = self.backbone.feature_info if self.spec.cam_layer else ()
        sixteen = [at for at, layer in enumerate(layers) if layer["reduction"] == 16]
        pixels = self._normalised(images)
        if sixteen:
            features, (finer,) = self.backbone.forward_intermediates(pixels, indices=sixteen[-1:])
        else:
            features = finer = self._last_features(pixels)
        return features, (finer - finer.mean(dim=(2, 3), keepdim=True)).square().sum(dim=1).sqrt()

    def logits(self, features: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (n, n_classes) from the last feature map and, if the network has the branch,
        metadata (n, n_metadata).
        """
        if self.spec.cam_layer:
            logits = self.backbone.forward_head(features)
        else:
            pooled = self.last_map(features).mean(dim=(2, 3))
            logits = self.classifier(F.dropout(pooled, self.drop_rate, self.training))
        if self.metadata is None:
            return logits
        if metadata is None:
            metadata = logits.new_zeros((len(logits), self.n_metadata))
        return logits + self.metadata(metadata.to(self.metadata[0].weight.dtype))

    @property
    def n_metadata(self) -> int:
        """Columns of metadata that the network takes; 0: it has no branch for it."""
        return 0 if self.metadata is None else int(self.metadata[0].in_features)

    def outputs(self, images: torch.Tensor, metadata: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """All that an exported network gives, by name: the one place that says so.

        `logits`, float (n, n_classes), and what class activation maps are made of: see `features_and_detail`.
        """
        features, detail = self.features_and_detail(images)
        return {LOGITS: self.logits(features, metadata), FEATURES: features, DETAIL: detail}

    def for_inference(self) -> LesionNet:
        """A faster copy with the same output, for the device that the network is on.

        Its weights must not be changed: batch norm is merged into the kernels of the convolutions.
        """
        network: LesionNet = copy.deepcopy(self).eval().requires_grad_(False)
        for module in network.modules():
            # Nothing is kept for a backward pass, so writing in place saves memory traffic.
            if isinstance(module, nn.ReLU | nn.ReLU6 | nn.SiLU):
                module.inplace = True
        merge_norms(network.backbone, learning=False)
        return network

    def forward(self, images: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Logits, float (n, n_classes)."""
        return self.logits(self.features(images), metadata)


def restore_network(checkpoint: Checkpoint) -> LesionNet:
    """The trained network of a checkpoint, on the CPU and in evaluation mode.

    Raises
    ------
    ArtifactError : the architecture is unknown, or the weights do not fit or are not finite.
    """
    n_metadata = int(checkpoint.figures.get("metadata_columns", 0))
    try:
        spec = replace(backbone(checkpoint.arch), options=stored_options(checkpoint))
        network = LesionNet(
            spec, checkpoint.preprocessing, n_classes=checkpoint.classes.n_classes, n_metadata=n_metadata
        )
    except UsageError as error:
        raise ArtifactError(
            f"{checkpoint.name} has the architecture {checkpoint.arch!r}, which this version does not know",
            error.hint,
        ) from None
    load_weights(network, checkpoint.weights, checkpoint.name)
    result: LesionNet = network.eval()
    return result


def weights_to_bytes(network: nn.Module) -> bytes:
    """The network's state as the content of a safetensors file."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})


def to_half_precision(content: bytes) -> bytes:
    """The weights with every matrix and kernel rounded to float16; norms and biases stay float32.

    Raises
    ------
    ArtifactError : a weight is outside the range of float16.
    """
    state = load(content)
    rounded = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in state.items()}
    overflowing = [name for name, tensor in rounded.items() if not tensor.isfinite().all()]
    if overflowing:
        raise ArtifactError(
            f"too large for half precision: {name_items(overflowing)}", "Train without --half."
        )
    return save(rounded)


def load_weights(network: nn.Module, content: bytes, name: str) -> None:
    """Load stored weights into the network; every tensor must be present, fit, and be finite.

    Raises
    ------
    ArtifactError : tensors are missing, unknown, of another shape, or not finite; they are named.
    """
    try:
        state = load(content)
    except SafetensorError as error:
        raise ArtifactError(f"the weights of {name} cannot be read: {error}") from None
    own = network.state_dict()
    wrong = [key for key in own if key not in state or state[key].shape != own[key].shape]
    wrong += [key for key in state if key not in own]
    if wrong:
        raise ArtifactError(f"the weights do not fit {name}: {name_items(wrong)}")
    broken = [
        key for key, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        raise ArtifactError(
            f"the weights of {name} hold NaN or infinity: {name_items(broken)}", "Train the network again."
        )
    network.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in state.items()})


def load_mean(network: nn.Module, contents: Sequence[bytes], names: Sequence[str]) -> None:
    """Load the mean of several stored weights into the network.

    The mean is a useful network only if all of them were trained from the same weights ("model soups",
    Wortsman et al., 2022, arXiv:2203.05482). Integer counters are those of the first.

    Raises
    ------
    ArtifactError : as for `load_weights`.
    """
    total: dict[str, torch.Tensor] = {}
    for content, name in zip(contents, names, strict=True):
        load_weights(network, content, name)
        for key, tensor in network.state_dict().items():
            if key not in total:
                total[key] = tensor.double() if tensor.is_floating_point() else tensor.clone()
            elif tensor.is_floating_point():
                total[key] += tensor
    means = {key: t / len(contents) if t.is_floating_point() else t for key, t in total.items()}
    network.load_state_dict({key: means[key].to(t.dtype) for key, t in network.state_dict().items()})
