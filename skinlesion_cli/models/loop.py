"""The training loop, in one sitting.

Everything random is a function of (seed, epoch, step): which images, how they are augmented and mixed, and
dropout. So the state to save is the weights, the optimiser, the averaged weights and a few counters; a run
killed at any moment and started again ends with the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skinlesion_cli.config.schema import Recipe
from skinlesion_cli.decisions.metrics import balanced_accuracy, sensitivity
from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.models.losses import smooth_targets, training_loss
from skinlesion_cli.models.mixing import mix
from skinlesion_cli.models.optimisation import (
    WeightAverage,
    learning_rate_factor,
    make_optimizer,
    selection_score,
)
from skinlesion_cli.progress import Reporter
from skinlesion_cli.taxonomy import CLASS_INDEX, MALIGNANT_CLASSES

SAVE_INTERVAL_S = 600.0
Batches = Callable[[int, int, int], Iterable[tuple[torch.Tensor, ...]]]


@dataclass
class Progress:
    """Where a run stands: counters and scores, all JSON types."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_score: float = -math.inf
    epochs_without_gain: int = 0
    loss_sum: float = 0.0
    history: list[dict[str, float | None]] = field(default_factory=list)
    finished: bool = False


@dataclass
class Trainer:
    """One network in training.

    `batches(epoch, size_px, first_step)` yields uint8 images, labels and, where there is any, metadata.
    `validation` yields the same without augmentation. `save(trainer)` stores the state; it is called every
    epoch and at least every ten minutes.
    """

    network: nn.Module
    recipe: Recipe
    seed: int
    steps_per_epoch: int
    batches: Batches
    validation: Callable[[], Iterable[tuple[torch.Tensor, ...]]]
    device: torch.device
    reporter: Reporter
    save: Callable[[Trainer], None] = lambda trainer: None
    class_weights: torch.Tensor | None = None
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.network.to(self.device, memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.network, self.recipe)
        decay = self.recipe.ema_decay
        self.average = WeightAverage(self.network, decay) if decay else None
        self.plateau = (
            torch.optim.lr_scheduler.ReduceLROnPlateau(
                self.optimizer,
                mode="max",
                factor=self.recipe.plateau_factor,
                patience=self.recipe.plateau_patience_epochs,
            )
            if self.recipe.schedule == "plateau"
            else None
        )
        self.best: dict[str, torch.Tensor] = {}
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(self.device)
        # bfloat16 needs no loss scaling; on a CPU it would change results from machine to machine.
        self.autocast = self.device.type == "cuda" and torch.cuda.is_bf16_supported()

    @property
    def evaluated(self) -> nn.Module:
        """The network that validation and the checkpoint use: the averaged one where there is one."""
        return self.average.network if self.average else self.network

    def fit(self) -> None:
        """Train to the end, from wherever `progress` stands."""
        while not self.progress.finished:
            started, first_step = time.monotonic(), self.progress.step
            self._train_epoch()
            seconds = time.monotonic() - started
            images = (self.steps_per_epoch - first_step) * self.recipe.batch_size
            self._end_epoch(images_per_s=images / max(seconds, 1e-9))
            self.save(self)
        self.network.load_state_dict(self.best)

    def _train_epoch(self) -> None:
        progress, recipe = self.progress, self.recipe
        size_px = recipe.size_px_at(progress.epoch / recipe.epochs)
        self.network.train()
        saved_at = time.monotonic()
        label = f"epoch {progress.epoch + 1}/{recipe.epochs} at {size_px} px"
        with self.reporter.task(label, total=self.steps_per_epoch, unit="steps") as task:
            task.advance(progress.step)
            for batch in self.batches(progress.epoch, size_px, progress.step):
                progress.loss_sum += self._train_step(batch)
                progress.step += 1
                task.advance()
                if time.monotonic() - saved_at > SAVE_INTERVAL_S:
                    self.save(self)
                    saved_at = time.monotonic()

    def _train_step(self, batch: tuple[torch.Tensor, ...]) -> float:
        recipe, progress = self.recipe, self.progress
        global_step = progress.epoch * self.steps_per_epoch + progress.step
        torch.manual_seed(_step_seed(self.seed, global_step))
        if self.plateau is None:
            factor = learning_rate_factor(recipe, global_step, self.steps_per_epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * factor
        images, labels, *metadata = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        targets = smooth_targets(labels, recipe.label_smoothing)
        generator = np.random.default_rng([self.seed, global_step, 0xA])
        images, targets = mix(
            images,
            targets,
            mixup_alpha=recipe.mixup_alpha,
            cutmix_alpha=recipe.cutmix_alpha,
            generator=generator,
        )
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in _parts(len(images), recipe.accumulation_steps):
            with self._precision():
                logits = self.network(images[part], *(values[part] for values in metadata))
            loss = training_loss(
                logits, targets[part], focal_gamma=recipe.focal_gamma, class_weights=self.class_weights
            )
            share = len(targets[part]) / len(targets)
            (loss * share).backward()
            total += float(loss.detach()) * share
        if not math.isfinite(total):
            raise SkinLesionError(
                f"the loss became {total} in epoch {progress.epoch + 1}, step {progress.step + 1}",
                "Lower the learning rate (--set learning_rate=...) and start over with --fresh.",
            )
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
        self.optimizer.step()
        if self.average:
            self.average.update(self.network, global_step)
        return total

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.bfloat16) if self.autocast else contextlib.nullcontext()

    def _end_epoch(self, images_per_s: float) -> None:
        progress, recipe = self.progress, self.recipe
        labels, logits = self.validate()
        predicted = logits.argmax(axis=1)
        validation_loss = float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))
        bacc = balanced_accuracy(labels, predicted)
        row: dict[str, float | None] = {
            "epoch": progress.epoch + 1,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": progress.loss_sum / self.steps_per_epoch,
            "val_loss": validation_loss,
            "val_bacc": bacc,
        }
        for name in MALIGNANT_CLASSES:
            value = sensitivity(labels, predicted, CLASS_INDEX[name])
            row[f"sensitivity_{name}"] = None if math.isnan(value) else value
        progress.history.append(row)
        self.reporter.row("train", {**row, "images_per_s": images_per_s})
        score = selection_score(recipe, bacc, validation_loss)
        if recipe.selection == "last" or score > progress.best_score + recipe.min_delta or not self.best:
            progress.best_score, progress.best_epoch = score, progress.epoch + 1
            progress.epochs_without_gain = 0
            self.best = {name: t.detach().clone() for name, t in self.evaluated.state_dict().items()}
        else:
            progress.epochs_without_gain += 1
        if self.plateau:
            self.plateau.step(score)
        patience = recipe.stop_patience_epochs
        stopped = patience is not None and progress.epochs_without_gain >= patience
        progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
        progress.finished = stopped or progress.epoch >= recipe.epochs

    def validate(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels, int64 (n,), and logits, float32 (n, 7), of the validation images."""
        network = self.evaluated.eval()
        labels, logits = [], []
        with torch.inference_mode():
            for images, batch_labels, *metadata in self.validation():
                outputs = network(images.to(self.device), *(values.to(self.device) for values in metadata))
                logits.append(outputs.float().cpu().numpy())
                labels.append(batch_labels.numpy())
        return np.concatenate(labels), np.concatenate(logits)

    # What a resumed run needs: tensors apart from counters, so that neither needs pickle.

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors of the state, by name."""
        found = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        found |= {f"best.{k}": v for k, v in self.best.items()}
        if self.average:
            found |= {f"average.{k}": v for k, v in self.average.network.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
        return {k: v.detach().cpu().contiguous() for k, v in found.items()}

    def counters(self) -> dict[str, Any]:
        """All else of the state, in JSON types."""
        return {
            "progress": vars(self.progress) | {"best_score": self.progress.best_score if self.best else None},
            "learning_rates": [group["lr"] for group in self.optimizer.param_groups],
            "plateau": self.plateau.state_dict() if self.plateau else None,
        }

    def restore(self, tensors: dict[str, torch.Tensor], counters: dict[str, Any]) -> None:
        """Take up a saved state."""

        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.network.load_state_dict(under("network."))
        self.best = {k: v.to(self.device) for k, v in under("best.").items()}
        if self.average:
            self.average.network.load_state_dict(under("average."))
        states: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in under("optimizer.").items():
            index, name = key.split(".", 1)
            states.setdefault(int(index), {})[name] = value
        packed = self.optimizer.state_dict() | {"state": states}
        self.optimizer.load_state_dict(packed)
        for group, rate in zip(self.optimizer.param_groups, counters["learning_rates"], strict=True):
            group["lr"] = rate
        if self.plateau and counters["plateau"]:
            self.plateau.load_state_dict(counters["plateau"])
        values = dict(counters["progress"])
        if values["best_score"] is None:
            values["best_score"] = -math.inf
        self.progress = Progress(**values)


def _step_seed(seed: int, global_step: int) -> int:
    return int(np.random.SeedSequence([seed, global_step, 0xD]).generate_state(1, np.uint32)[0])


def _parts(n: int, parts: int) -> Iterator[slice]:
    size = -(-n // parts)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
