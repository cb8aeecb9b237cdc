"""The training loop.

Everything random is a function of (seed, epoch, step): the choice of images, their augmentation and mixing,
and dropout. The training state therefore consists of the weights, the optimiser, the averaged weights and a
few counters; a run that is killed at any moment and started again ends with the same weights,
bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from skinlesion_cli.config.schema import Recipe
from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.models.freezing import freeze_norms_and_stages, merge_norms
from skinlesion_cli.models.training.compiling import compiled, not_compiled
from skinlesion_cli.models.training.counters import EpochTime, Progress
from skinlesion_cli.models.training.distributed import Distributed
from skinlesion_cli.models.training.history import Row, history_row
from skinlesion_cli.models.training.interruption import HeldSignals
from skinlesion_cli.models.training.losses import smooth_targets, training_loss
from skinlesion_cli.models.training.memory import is_out_of_memory, no_room_for_one
from skinlesion_cli.models.training.mixup import mix
from skinlesion_cli.models.training.optimisation import (
    WeightAverage,
    learning_rate_factor,
    make_optimizer,
    make_plateau,
    selection_score,
)
from skinlesion_cli.models.training.validation import BatchPredictor
from skinlesion_cli.progress import Reporter
from skinlesion_cli.taxonomy.class_list import ClassList

SAVE_INTERVAL_S = 600.0
# On a GPU the losses are read after so many steps: reading one waits until the GPU has finished all its work.
_STEPS_BETWEEN_READS = 20
# What a seed is drawn for.
_MIXING, _DROPOUT = 0xA, 0xD
Batch = tuple[torch.Tensor, ...]


@dataclass
class Trainer:
    """Trains one network.

    `batches(epoch, size_px, first_step)` yields this process's share of every batch: uint8 images, labels
    and, if the recipe uses it, metadata. `validation()` yields its share of the validation images, not
    augmented. `save(trainer)` stores the training state; it is called after each epoch, at least every ten
    minutes, and before a signal ends the run. `on_epoch(history, time)` is called after each epoch.
    `set_training_mode(network)` is called before the steps of an epoch. `compiles`: the steps, not the
    validation, call the network through `torch.compile`.
    """

    network: nn.Module
    recipe: Recipe
    seed: int
    steps_per_epoch: int
    batches: Callable[[int, int, int], Iterable[Batch]]
    validation: Callable[[], Iterable[Batch]]
    device: torch.device
    reporter: Reporter
    classes: ClassList
    save: Callable[[Trainer], None] = lambda trainer: None
    on_epoch: Callable[[list[Row], EpochTime], None] = lambda history, time: None
    set_training_mode: Callable[[nn.Module], object] = nn.Module.train
    class_weights: torch.Tensor | None = None
    logit_offsets: torch.Tensor | None = None
    distributed: Distributed = field(default_factory=Distributed)
    compiles: bool = False
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.progress.parts = recipe.accumulation_steps
        self.network.to(self.device, memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.network, recipe, fused=self.device.type == "cuda")
        self.average = WeightAverage(self.network, recipe.ema_decay) if recipe.ema_decay else None
        self.plateau = make_plateau(self.optimizer, recipe)
        self.best: Mapping[str, torch.Tensor] = {}
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(self.device)
        if self.logit_offsets is not None:
            self.logit_offsets = self.logit_offsets.to(self.device)
        # bfloat16 needs no loss scaling; on a CPU it would change results from machine to machine. GPUs older
        # than Ampere emulate it, which is slower than float32.
        self.autocast = (
            recipe.mixed_precision
            and self.device.type == "cuda"
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )
        self._predictor = BatchPredictor(self.device, self.reporter.note)
        self.frozen = False
        self._prepare_calls()
        self._unread_losses: list[torch.Tensor] = []
        if self.device.type == "cuda":
            # The sizes of batches stay the same over many steps: the fastest kernels are worth finding.
            torch.backends.cudnn.benchmark = True
            # As torch has it, and alike for all folds: predicting the held-out images of one switches it off.
            torch.backends.cudnn.allow_tf32 = True

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and stored: the averaged one if the recipe averages weights."""
        return self.average.network if self.average else self.network

    def fit(self) -> None:
        """Train to the end, starting from `progress`;
        afterwards the network holds the weights of the best epoch.
        """
        with HeldSignals() as signals:
            while not self.progress.finished:
                started = time.monotonic()
                epoch_time = self._train_epoch(signals)
                self._end_epoch()
                self.save(self)
                epoch_time.total_s = time.monotonic() - started
                self.on_epoch(self.progress.history, epoch_time)
                signals.deliver()
        self.network.load_state_dict(self.best)

    def _train_epoch(self, signals: HeldSignals) -> EpochTime:
        progress, recipe = self.progress, self.recipe
        epoch_time, started = EpochTime(), time.monotonic()
        size_px = recipe.size_px_at(progress.epoch / recipe.epochs)
        self.set_training_mode(self.network)
        if self.frozen:
            self._apply_freezing()
        saved_at = time.monotonic()
        label = f"epoch {progress.epoch + 1}/{recipe.epochs} at {size_px} px"
        with self.reporter.task(label, total=self.steps_per_epoch, unit="steps") as task:
            task.skip(progress.step)
            for batch in epoch_time.waits_for(self.batches(progress.epoch, size_px, progress.step)):
                self._freeze_when_due()
                self.train_step(batch)
                progress.step += 1
                epoch_time.n_steps += 1
                task.advance()
                if signals.pending is not None or time.monotonic() - saved_at > SAVE_INTERVAL_S:
                    self._read_losses()
                    self.save(self)
                    saved_at = time.monotonic()
                    signals.deliver()
        self._read_losses()
        epoch_time.training_s = time.monotonic() - started
        return epoch_time

    @property
    def _share_done(self) -> float:
        """Share of the training's steps that are done."""
        progress = self.progress
        return (progress.epoch + progress.step / self.steps_per_epoch) / self.recipe.epochs

    def _freeze_when_due(self) -> None:
        if not self.frozen and self.recipe.is_frozen_at(self._share_done):
            self.freeze()

    def freeze(self) -> None:
        """From now on keep the statistics of batch norm and the weights of the recipe's first stages."""
        self.frozen = True
        self._apply_freezing()
        merge_norms(self.network.backbone, learning=True)
        # Distributed training has to know which gradients it must wait for.
        self._prepare_calls()

    def _prepare_calls(self) -> None:
        parallel = self.distributed.wrap(self.network)
        self.call_network = compiled(parallel) if self.compiles else parallel

    def _apply_freezing(self) -> None:
        freeze_norms_and_stages(self.network.backbone, self.recipe.freeze_stages)

    def train_step(self, batch: Batch) -> None:
        """One optimiser step on a batch; its loss is added to the epoch's sum."""
        recipe, progress = self.recipe, self.progress
        global_step = progress.epoch * self.steps_per_epoch + progress.step
        if self.plateau is None:
            factor = learning_rate_factor(recipe, global_step, self.steps_per_epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * factor * group.get("lr_scale", 1.0)
        # Only CUDA waits before it reuses the memory of a tensor that is being copied.
        not_waiting = self.device.type == "cuda"
        images, labels, *metadata = (tensor.to(self.device, non_blocking=not_waiting) for tensor in batch)
        targets = smooth_targets(labels, recipe.label_smoothing, self.classes.n_classes)
        if recipe.mixes_at(self._share_done):
            images, targets, *metadata = mix(
                images,
                targets,
                metadata,
                mixup_alpha=recipe.mixup_alpha,
                cutmix_alpha=recipe.cutmix_alpha,
                seed=_seed_of(self.seed, global_step, _MIXING),
            )
        self._unread_losses.append(self._gradients(images, targets, metadata, global_step))
        if self.device.type != "cuda" or len(self._unread_losses) >= _STEPS_BETWEEN_READS:
            self._read_losses()
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
        self.optimizer.step()
        if self.average:
            self.average.update(self.network, global_step)

    def _read_losses(self) -> None:
        """Add the losses of the last steps to the epoch's sum; a loss that is not finite is an error."""
        losses, self._unread_losses = self._unread_losses, []
        for loss in torch.stack(losses).tolist() if losses else ():
            if not math.isfinite(loss):
                raise _diverged("loss", loss, self.progress)
            self.progress.loss_sum += loss

    def _gradients(
        self, images: torch.Tensor, targets: torch.Tensor, metadata: list[torch.Tensor], global_step: int
    ) -> torch.Tensor:
        """Compute the batch's gradients, in more and smaller parts when memory runs out; returns the loss,
        a scalar on the device."""
        while (loss := self._gradients_if_they_fit(images, targets, metadata, global_step)) is None:
            self._halve_parts(len(images))
        return loss

    def _gradients_if_they_fit(
        self, images: torch.Tensor, targets: torch.Tensor, metadata: list[torch.Tensor], global_step: int
    ) -> torch.Tensor | None:
        """None where memory runs out. A function of its own: with it end the variables of the failed attempt,
        which hold its activations; they would take the memory that the next attempt needs.
        """
        torch.manual_seed(_seed_of(self.seed, global_step, _DROPOUT, self.distributed.rank))
        self.optimizer.zero_grad(set_to_none=True)
        # Apple's devices have no float64.
        precise = torch.float32 if self.device.type == "mps" else torch.float64
        try:
            total = torch.zeros((), dtype=precise, device=self.device)
            for part in _parts(len(images), self.progress.parts):
                share = len(targets[part]) / len(targets)
                with self._precision():
                    logits = self.call_network(images[part], *(values[part] for values in metadata))
                loss = training_loss(
                    logits,
                    targets[part],
                    focal_gamma=self.recipe.focal_gamma,
                    class_weights=self.class_weights,
                    logit_offsets=self.logit_offsets,
                )
                (loss * share).backward()
                total += loss.detach().to(precise) * share
            return total
        except (RuntimeError, MemoryError) as error:
            if self.compiles and (explained := not_compiled(error)):
                raise explained from error
            # Several processes would have to halve their parts together; there it stays an error.
            if not is_out_of_memory(error) or self.distributed.size > 1:
                raise
            return None

    def _halve_parts(self, batch_size: int) -> None:
        if self.progress.parts >= batch_size:
            raise no_room_for_one(self.device)
        self.progress.parts = parts = min(2 * self.progress.parts, batch_size)
        self.optimizer.zero_grad(set_to_none=True)
        self.reporter.note(
            f"out of memory: batches of {batch_size} images are now processed {-(-batch_size // parts)} "
            "at a time (same gradients; batch norm uses the statistics of the smaller parts)"
        )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.bfloat16) if self.autocast else contextlib.nullcontext()

    def _end_epoch(self) -> None:
        progress, recipe = self.progress, self.recipe
        row = history_row(
            progress.epoch + 1,
            max(group["lr"] for group in self.optimizer.param_groups),
            self.distributed.mean(progress.loss_sum) / self.steps_per_epoch,
            *self.validate(),
            self.classes,
        )
        bacc, validation_loss = row["val_bacc"], row["val_loss"]
        assert bacc is not None
        assert validation_loss is not None
        if not math.isfinite(validation_loss):
            raise _diverged("validation loss", validation_loss, progress)
        progress.history.append(row)
        score = selection_score(recipe, bacc, validation_loss)
        if recipe.selection == "last" or score > progress.best_score + recipe.min_delta:
            progress.best_score, progress.best_epoch = score, progress.epoch + 1
            progress.epochs_without_gain = 0
            self.best = {name: t.detach().clone() for name, t in self.evaluated.state_dict().items()}
        else:
            progress.epochs_without_gain += 1
        if self.plateau:
            self.plateau.step(-score)
        patience = recipe.stop_patience_epochs
        stopped = patience is not None and progress.epochs_without_gain >= patience
        progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
        progress.finished = stopped or progress.epoch >= recipe.epochs

    def validate(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels, int64 (n,), and logits, float32 (n, n_classes), of the validation images of all
        processes.
        """
        network = self.evaluated.eval()
        self.distributed.share_buffers(network)
        labels, logits = self._predictor.predict(network, self.validation())
        return self.distributed.gather(labels), self.distributed.gather(logits)


def _diverged(what: str, value: float, progress: Progress) -> SkinLesionError:
    return SkinLesionError(
        f"the {what} became {value} in epoch {progress.epoch + 1}, step {progress.step + 1}",
        "Lower the learning rate (--set learning_rate=...) and start over with --fresh.",
    )


def _seed_of(seed: int, global_step: int, *purpose: int) -> int:
    """Seed of one random part of a step; dropout, for example, is different in every process."""
    return int(np.random.SeedSequence([seed, global_step, *purpose]).generate_state(1, np.uint32)[0])


def _parts(n: int, parts: int) -> Iterator[slice]:
    size = -(-n // parts)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
