"""Networks that others stored in timm's format: `hf-hub:owner/model`, and `local-dir:FOLDER`.

The format is a `config.json` (architecture of timm, its arguments, `pretrained_cfg`) beside
`model.safetensors`. No other weights are accepted, since reading them can run code. A checkpoint of such a
network keeps the architecture and its arguments, so that prediction needs neither hub nor folder.

Reading a configuration loads neither torch nor timm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.config.schema import Interpolation
from skinlesion_cli.errors import ArtifactError, UsageError, WeightsError, name_items
from skinlesion_cli.models.backbones import (
    STORED_PREFIX,
    TIMM_PREFIX,
    BackboneSpec,
    backbone,
    interpolation_of,
)

HUB, FOLDER = PREFIXES = ("hf-hub:", "local-dir:")
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
# Where a checkpoint keeps the arguments of its architecture, among its figures.
MODEL_ARGS: Final = "model_args"
_MAX_CONFIG_BYTES = 1 << 20
# No argument of an architecture is larger than this; one from elsewhere might ask for any amount of memory.
_MOST = 65_536
_REPO = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII)
_ARCHITECTURE = re.compile(r"[a-z0-9_]+", re.ASCII)
# Decided here, or a way to other files.
_OWN_ARGUMENTS = frozenset(
    {"num_classes", "in_chans", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"}
    | {"cache_dir", "global_pool", "drop_rate", "drop_path_rate", "img_size"}
)


@dataclass(frozen=True)
class ForeignNetwork:
    """A network in timm's format. `name` is how the user named it, without the path of a folder.

    `weights` is the folder, or the repository of the hub and its commit (`owner/model@commit`); None: those
    of a checkpoint, which are loaded apart. `options` are arguments of the architecture, in JSON types;
    `mean` and `std` for pixels in [0, 1].
    """

    name: str
    weights: Path | str | None
    architecture: str
    options: tuple[tuple[str, Any], ...]
    input_size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> ForeignNetwork | None:
        """The network of a checkpoint, to be trained on; None for the recommended ones.

        Raises
        ------
        ArtifactError : the arguments of its architecture are damaged.
        """
        if not checkpoint.arch.startswith(STORED_PREFIX):
            return None
        preprocessing = checkpoint.preprocessing
        return cls(
            name=checkpoint.name,
            weights=None,
            architecture=checkpoint.arch.removeprefix(STORED_PREFIX),
            options=stored_options(checkpoint),
            input_size_px=preprocessing.input_size_px,
            mean=preprocessing.mean,
            std=preprocessing.std,
            interpolation=preprocessing.interpolation,
        )

    @property
    def arch(self) -> str:
        """The architecture as it is stored."""
        return STORED_PREFIX + self.architecture

    @property
    def spec(self) -> BackboneSpec:
        """The network with mean, std and interpolation of this pretraining, and its weights."""
        of_timm = backbone(TIMM_PREFIX + self.architecture)
        hub_id, _, revision = self.weights.partition("@") if isinstance(self.weights, str) else ("", "", "")
        return replace(
            of_timm,
            options=self.options,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            hub_id=hub_id or None,
            hub_revision=revision or None,
            folder=self.weights if isinstance(self.weights, Path) else None,
            note=of_timm.note
            if self.weights is None
            else f"{self.name}: {self.architecture}, pretrained at {self.input_size_px} px",
        )


def is_foreign(arch: str) -> bool:
    """Whether an architecture is named as `hf-hub:...` or `local-dir:...`."""
    return arch.startswith(PREFIXES)


def resolve(arch: str) -> ForeignNetwork:
    """Read the configuration of `hf-hub:owner/model`, also with `@revision`, or of `local-dir:FOLDER`.

    Raises
    ------
    UsageError : no such form or folder, or not a network of timm's format.
    WeightsError : the hub cannot be reached, or has no such model.
    ArtifactError : the configuration is damaged.
    """
    if arch.startswith(FOLDER):
        folder = Path(arch.removeprefix(FOLDER)).expanduser()
        missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise UsageError(
                f"{folder} is no network in timm's format: {name_items(missing)} missing",
                f"It needs {CONFIG} and {WEIGHTS}, as timm.models.save_for_hf(..., safe_serialization=True) "
                "writes; other weights are not read, since that could run code.",
            )
        return _parsed(f"{FOLDER}{folder.resolve().name}", folder.resolve(), folder / CONFIG)
    match = _REPO.fullmatch(arch.removeprefix(HUB))
    if match is None or ".." in arch:
        raise UsageError(f"{arch} is not a name of a network on the hub", f"Form: {HUB}owner/model@revision")
    path = _from_hub(arch, match["repo"], match["revision"])
    # The folder of a downloaded file is named after its commit.
    return _parsed(arch, f"{match['repo']}@{path.parent.name}", path)


def _from_hub(arch: str, repo: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo_id=repo, filename=CONFIG, revision=revision))
    except Exception as error:
        # The hub's client raises many kinds of error (offline, proxy, gone) that mean the same to the user.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{arch} cannot be read from the hub: {reason}",
            f"Without a network: download {CONFIG} and {WEIGHTS} on another machine, and name their folder: "
            f"--arch {FOLDER}FOLDER",
        ) from None


def _parsed(name: str, weights: Path | str, path: Path) -> ForeignNetwork:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("larger than any configuration")
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no mapping")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{CONFIG} of {name} cannot be read: {error}") from None
    architecture = config.get("architecture")
    if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
        raise UsageError(
            f"{name} is no network in timm's format: its {CONFIG} names no architecture of timm",
            "Models of other libraries are not read; many of them have a copy at huggingface.co/timm.",
        )
    # Older configurations are one mapping.
    pretraining = config.get("pretrained_cfg", config)
    arguments = config.get("model_args") or {}
    if not isinstance(pretraining, Mapping) or not isinstance(arguments, Mapping):
        raise ArtifactError(f"{CONFIG} of {name} is damaged: pretrained_cfg or model_args is no mapping")
    try:
        return ForeignNetwork(
            name=name,
            weights=weights,
            architecture=architecture,
            options=options_of({key: arguments[key] for key in arguments if key not in _OWN_ARGUMENTS}),
            input_size_px=int(pretraining["input_size"][-1]),
            mean=_three(pretraining["mean"]),
            std=_three(pretraining["std"]),
            interpolation=interpolation_of(pretraining.get("interpolation")),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtifactError(
            f"{CONFIG} of {name} does not say what images its network takes: {error}",
            "pretrained_cfg needs input_size, mean and std.",
        ) from None


def stored_options(checkpoint: Checkpoint) -> tuple[tuple[str, Any], ...]:
    """The arguments of the architecture that a checkpoint keeps.

    Raises
    ------
    ArtifactError : they are damaged.
    """
    try:
        return options_of(checkpoint.figures.get(MODEL_ARGS, {}))
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{checkpoint.name} has a damaged architecture: {error}") from None


def options_of(arguments: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Arguments of an architecture, sorted by name; numbers, texts, and lists of numbers as tuples.

    Raises
    ------
    ValueError : a value of another kind, or an argument that is decided elsewhere.
    """
    options = []
    for key, value in sorted(arguments.items()):
        plain = tuple(value) if isinstance(value, list | tuple) else value
        each = plain if isinstance(plain, tuple) else (plain,)
        if key in _OWN_ARGUMENTS or not all(map(_is_plain, each)):
            raise ValueError(f"argument {key} is {value!r}")
        options.append((key, plain))
    return tuple(options)


def _is_plain(value: Any) -> bool:
    is_number = isinstance(value, int | float) and abs(value) <= _MOST
    return isinstance(value, str) or is_number


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return first, second, third
