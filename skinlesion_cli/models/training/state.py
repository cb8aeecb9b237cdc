"""Between a `Trainer` and the training state on disk: tensors and counters apart,
so that neither needs pickle.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from skinlesion_cli.models.training.counters import Progress

if TYPE_CHECKING:
    from skinlesion_cli.models.training.trainer import Trainer


# The attributes of torch's ReduceLROnPlateau that change; the others come from the recipe.
_PLATEAU = ("best", "num_bad_epochs", "last_epoch")


def state_tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All tensors of the training state by name: weights, averaged and best weights,
    the optimiser's moments.
    """
    tensors = {f"network.{k}": v for k, v in trainer.network.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in trainer.best.items()}
    if trainer.average:
        tensors |= {f"average.{k}": v for k, v in trainer.average.network.state_dict().items()}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def state_counters(trainer: Trainer) -> dict[str, Any]:
    """The rest of the training state, in JSON types."""
    progress = vars(trainer.progress)
    return {
        "progress": progress | {"best_score": _finite(progress["best_score"])},
        "learning_rates": [group["lr"] for group in trainer.optimizer.param_groups],
        "plateau": {key: _finite(getattr(trainer.plateau, key)) for key in _PLATEAU}
        if trainer.plateau
        else None,
    }


def restore_state(trainer: Trainer, tensors: dict[str, torch.Tensor], counters: dict[str, Any]) -> None:
    """Put a saved training state into the trainer, which then resumes from there."""

    def with_prefix(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    trainer.network.load_state_dict(with_prefix("network."))
    trainer.best = {k: v.to(trainer.device) for k, v in with_prefix("best.").items()}
    if trainer.average:
        trainer.average.network.load_state_dict(with_prefix("average."))
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in with_prefix("optimizer.").items():
        index, name = key.split(".", 1)
        states.setdefault(int(index), {})[name] = value
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict() | {"state": states})
    _in_memory_order_of_weights(trainer.optimizer)
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


def _in_memory_order_of_weights(optimizer: torch.optim.Optimizer) -> None:
    """Moments are stored row by row; the fused kernel reads them in the memory order of the weights."""
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _finite(value: float) -> float | None:
    """None for an infinite score (the initial value), which JSON cannot represent."""
    return value if math.isfinite(value) else None
