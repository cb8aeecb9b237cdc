"""The state of a training under way: tensors apart from counters, so that neither needs pickle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from skinlesion_cli.models.training.trainer import Trainer


# What changes in torch's ReduceLROnPlateau; the rest comes from the recipe.
_PLATEAU = ("best", "num_bad_epochs", "last_epoch")


def tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All tensors of the state, by name: weights, averaged weights, the best ones, the optimiser's moments."""
    found = {f"network.{k}": v for k, v in trainer.network.state_dict().items()}
    found |= {f"best.{k}": v for k, v in trainer.best.items()}
    if trainer.average:
        found |= {f"average.{k}": v for k, v in trainer.average.network.state_dict().items()}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
    return {k: v.detach().cpu().contiguous() for k, v in found.items()}


def counters(trainer: Trainer) -> dict[str, Any]:
    """All else of the state, in JSON types."""
    progress = vars(trainer.progress)
    return {
        "progress": progress | {"best_score": _finite(progress["best_score"])},
        "learning_rates": [group["lr"] for group in trainer.optimizer.param_groups],
        "plateau": {key: _finite(getattr(trainer.plateau, key)) for key in _PLATEAU}
        if trainer.plateau
        else None,
    }


def restore(trainer: Trainer, stored: dict[str, torch.Tensor], counters: dict[str, Any]) -> None:
    """Take up a saved state."""
    from skinlesion_cli.models.training.trainer import Progress

    def under(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}

    trainer.network.load_state_dict(under("network."))
    trainer.best = {k: v.to(trainer.device) for k, v in under("best.").items()}
    if trainer.average:
        trainer.average.network.load_state_dict(under("average."))
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in under("optimizer.").items():
        index, name = key.split(".", 1)
        states.setdefault(int(index), {})[name] = value
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict() | {"state": states})
    for group, rate in zip(trainer.optimizer.param_groups, counters["learning_rates"], strict=True):
        group["lr"] = rate
    if trainer.plateau and counters["plateau"]:
        for key in _PLATEAU:
            value = counters["plateau"][key]
            setattr(trainer.plateau, key, math.inf if value is None else value)
    values = dict(counters["progress"])
    if values["best_score"] is None:
        values["best_score"] = -math.inf
    trainer.progress = Progress(**values)


def _finite(value: float) -> float | None:
    """JSON has no infinity, which is where scores start."""
    return value if math.isfinite(value) else None
