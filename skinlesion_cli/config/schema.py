"""Settings that are stored, hashed and compared: frozen models that refuse unknown keys.

Units are part of the names (`input_size_px`, `warmup_epochs`).
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
TUNE_MODES = ("full", "last", "lora")
NonNegative = Annotated[float, Field(ge=0.0)]
_Mean = Annotated[float, Field(ge=-10.0, le=10.0)]
_Deviation = Annotated[float, Field(ge=1e-3, le=10.0)]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["antialias", "antialias-bicubic"]


class Frozen(BaseModel):
    """Base of all settings: immutable; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def sha256(self) -> str:
        """Hash of the resolved settings; equal settings have equal hashes on every machine."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()


def canonical_json(value: Any) -> bytes:
    """One byte string per value: sorted keys, no white space, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


class Preprocessing(Frozen):
    """How an image file becomes the network's input. Stored with the weights and always read from there.

    The whole image is resized to a square without keeping its aspect ratio, as in the published system:
    lesions near the border are kept, and training and prediction distort images in the same way.
    """

    input_size_px: Annotated[int, Field(ge=16, le=1024)] = 224
    # Both filters widen as an image shrinks: a triangle (bilinear where it is enlarged), or cubic.
    interpolation: Interpolation = "antialias"
    # Every image is first reduced to at most this many pixels per side, so that a sharp 6000 px photograph
    # and a 200 px thumbnail reach the network equally sharp. None: resized to input_size_px directly.
    harmonise_px: Annotated[int, Field(ge=16, le=2048)] | None = None
    # Every image is resized to a square of this side first, and crops at prediction are cut from it, finer
    # than from the input. None: they are cut from the input.
    field_px: Annotated[int, Field(ge=16, le=2048)] | None = None
    # Of pixels in [0, 1].
    mean: tuple[_Mean, _Mean, _Mean] = IMAGENET_MEAN
    std: tuple[_Deviation, _Deviation, _Deviation] = IMAGENET_STD


class Recipe(Frozen):
    """Everything that decides how one network is trained.

    The defaults are not recommendations: `configs/` holds the recipes, with reasons.
    """

    name: str
    # Length and batches
    # 0 leaves the initial weights as they are: with several networks to start from, their mean.
    epochs: Annotated[int, Field(ge=0, le=1000)]
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    accumulation_steps: Annotated[int, Field(ge=1)] = 1
    # Images drawn per epoch, as a multiple of the training images.
    epoch_fraction: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    # Drop the last batch of an epoch if it is smaller than the others.
    drop_last: bool = True
    # bfloat16 where the device is a CUDA GPU that has it; elsewhere, and when off, float32.
    mixed_precision: bool = True
    # Input
    input_size_px: Annotated[int, Field(ge=16, le=1024)]
    # Smaller inputs early on: (share of the training, size from then on); the last is input_size_px.
    progressive_sizes_px: tuple[tuple[Fraction, int], ...] = ()
    harmonise_px: int | None = None
    # Side of the images that crops at prediction (`ensemble --tta crops`) are cut from; None: the input's.
    field_px: int | None = None
    # Images are decoded once to this size; augmentation crops and resizes from it.
    cache_size_px: Annotated[int, Field(ge=16, le=2048)] = 256
    # `strong` is computed in batches on the device that trains, the others image by image on the CPU.
    augmentation: Literal["none", "published", "default", "varied", "strong"] = "default"
    # Groups of changes that `strong` leaves out, for studies of what each of them contributes.
    augmentation_omits: tuple[Literal["scale", "colour", "sharpness", "artefacts", "erasing"], ...] = ()
    # Class balance
    sampler: Literal["uniform", "weighted"] = "uniform"
    # Weight of a class in the sampler: count ** -power. 1 draws all classes equally often.
    sampler_power: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    # Likewise of the source that an image comes from; an image is drawn in proportion to the product of both.
    sampler_source_power: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    # Weight of a class in the loss: count ** -power, scaled to a mean of 1 over the images that are drawn.
    loss_weight_power: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    # Times the logarithm of a class's share of the drawn images, added to its logit in the loss alone: with
    # 1, the network's own logits become those of equally frequent classes.
    logit_adjustment: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    # Loss
    focal_gamma: NonNegative = 0.0
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    mixup_alpha: NonNegative = 0.0
    cutmix_alpha: NonNegative = 0.0
    # From this share of the training on, images are no longer mixed: the network ends with what it will see.
    mix_until: Fraction = 1.0
    # Optimiser
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0.0)]
    weight_decay: NonNegative = 0.0
    decay_norms_and_biases: bool = False
    clip_norm: NonNegative = 1.0
    # Learning rate of each layer as a multiple of that of the next one, counted from the classifier; 1: the
    # same for all.
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    # What is trained: all weights, the classifier alone, or adapters of low rank in the linear layers.
    tune: Literal["full", "last", "lora"] = "full"
    lora_rank: Annotated[int, Field(ge=1, le=256)] = 8
    # Schedule
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_epochs: NonNegative = 0.0
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    plateau_patience_epochs: Annotated[int, Field(ge=0)] = 4
    # Early stopping; None trains all epochs.
    stop_patience_epochs: Annotated[int, Field(ge=1)] | None = None
    min_delta: NonNegative = 0.0
    # Which epoch is kept: balanced accuracy, or w * BACC + (1 - w) / (1 + validation loss).
    selection: Literal["bacc", "mixed", "last"] = "bacc"
    selection_bacc_weight: Fraction = 1.0
    # Weights averaged over steps; None keeps the raw weights.
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    # Regularisation
    drop_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    drop_path_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    # From this share of the training on, batch norm keeps its running statistics (and costs nothing, as it is
    # folded into the convolutions) and the first stages, counting the stem, keep their weights; None: never.
    freeze_from: Fraction | None = None
    freeze_stages: Annotated[int, Field(ge=0)] = 0
    # Patient metadata joined to the image features; empty: images alone.
    metadata_fields: tuple[Literal["age", "sex", "site"], ...] = ()
    # Share of the training images whose metadata is withheld, so that prediction works without any.
    metadata_drop: Fraction = 0.3

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Recipe:
        if self.progressive_sizes_px:
            starts = [start for start, _ in self.progressive_sizes_px]
            if starts != sorted(starts) or starts[0] != 0.0:
                raise ValueError("progressive_sizes_px must start at 0.0 and ascend")
            if self.progressive_sizes_px[-1][1] != self.input_size_px:
                raise ValueError("the last of progressive_sizes_px must be input_size_px")
        if self.field_px is not None and self.field_px < self.input_size_px:
            raise ValueError("field_px must not be smaller than input_size_px: crops are cut from it")
        if self.field_px is not None and self.harmonise_px is not None:
            raise ValueError(
                "field_px and harmonise_px exclude each other: both say what an image is resized to first"
            )
        if self.sampler_source_power and self.sampler != "weighted":
            raise ValueError("sampler_source_power needs sampler: weighted")
        if self.augmentation_omits and self.augmentation != "strong":
            raise ValueError(f"augmentation_omits belongs to augmentation: strong, not {self.augmentation}")
        if self.freeze_stages and self.freeze_from is None:
            raise ValueError(
                "freeze_stages needs freeze_from, the share of the training from which they are frozen"
            )
        if self.tune != "full" and self.freeze_from is not None:
            raise ValueError(f"freeze_from belongs to tune: full; tune: {self.tune} freezes from the start")
        if self.tune == "last" and self.layer_decay != 1.0:
            raise ValueError("layer_decay needs more than one layer: it does not go with tune: last")
        return self

    def preprocessing(self) -> Preprocessing:
        """How prediction has to prepare an image so that the network sees what it was trained on."""
        return Preprocessing(
            input_size_px=self.input_size_px, harmonise_px=self.harmonise_px, field_px=self.field_px
        )

    def size_px_at(self, progress: float) -> int:
        """Input size in pixels at this share (0 to 1) of the training."""
        size_px = self.input_size_px
        for start, candidate_px in self.progressive_sizes_px:
            if progress >= start:
                size_px = candidate_px
        return size_px

    def mixes_at(self, progress: float) -> bool:
        """Whether images are mixed at this share (0 to 1) of the training."""
        return progress < self.mix_until and max(self.mixup_alpha, self.cutmix_alpha) > 0

    def is_frozen_at(self, progress: float) -> bool:
        """Whether batch norm and the first stages are frozen at this share (0 to 1) of the training."""
        return self.freeze_from is not None and progress >= self.freeze_from
