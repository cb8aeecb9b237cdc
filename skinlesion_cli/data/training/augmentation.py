"""Training augmentation: uint8 (H, W, 3) of any size in, uint8 (size_px, size_px, 3) out."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import albumentations as A
import cv2
import numpy as np

from skinlesion_cli.data.training.artefacts import artefacts

# Each loader process keeps one core busy; OpenCV's own threads would only compete with it.
cv2.setNumThreads(0)


class Augmentation:
    """Augments one image at a time; the same seed gives the same result in any process."""

    def __init__(self, pipelines: list[A.Compose]) -> None:
        self._pipelines = pipelines

    def __call__(self, image: np.ndarray, label: int, seed: int) -> np.ndarray:
        """Augment an image, uint8 (H, W, 3), of the class with index `label`."""
        pipeline = self._pipelines[label]
        # Not set_random_seed: it gives every transform the same random numbers, so that transforms with equal
        # probability (such as the two flips) would always be applied together.
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result: np.ndarray = pipeline(image=image)["image"]
        return result


def make_augmentation(kind: str, size_px: int, class_counts: Mapping[str, int]) -> Augmentation:
    """The augmentation of this kind (`none`, `published`, `default`, `varied`) with this output size.

    `class_counts` : images of each class, in the order of the class indexes.
    """
    if kind == "published":
        levels = published_levels(class_counts)
        pipelines = {level: _compose(_published(level, size_px)) for level in set(levels.values())}
        return Augmentation([pipelines[levels[name]] for name in class_counts])
    transforms = {"default": _default, "varied": _varied}.get(kind, lambda size: [_resize(size)])(size_px)
    pipeline = _compose(transforms)
    return Augmentation([pipeline] * len(class_counts))


def _compose(transforms: list[Any]) -> A.Compose:
    return A.Compose(transforms)


def _resize(size_px: int) -> A.BasicTransform:
    return A.Resize(size_px, size_px, interpolation=cv2.INTER_AREA)


def _varied(size_px: int) -> list[Any]:
    """`default` with what photographs of other clinics add: lesions that are small in the field or fill it,
    other
    light, and hair, rulers, ink, stickers and dark corners (`artefacts`)."""
    crop = A.RandomResizedCrop(
        (size_px, size_px), scale=(0.4, 1.0), ratio=(0.75, 4 / 3), interpolation=cv2.INTER_AREA
    )
    # Half of the time the picture shrinks to 0.55 to 1 of its side
    # and its mirrored surroundings fill the rest.
    shrink = A.Affine(scale=(0.55, 1.0), border_mode=cv2.BORDER_REFLECT_101, p=0.5)
    whole = A.Sequential([shrink, _resize(size_px)], p=0.35)
    _, *others = _default(size_px)
    return [A.OneOf([A.Sequential([crop], p=0.65), whole], p=1.0), *others[:2], *artefacts(), *others[2:]]


def _default(size_px: int) -> list[Any]:
    """Geometry and colour as in the strongest published work on these data, and random sharpness.

    The training images have two resolutions, and the less sharp ones are more often malignant. Blur, loss of
    resolution, sharpening and JPEG artefacts are applied at random
    so that they carry no information on the class.
    """
    return [
        A.OneOf(
            [
                A.RandomResizedCrop(
                    (size_px, size_px), scale=(0.5, 1.0), ratio=(0.8, 1.25), interpolation=interpolation
                )
                for interpolation in (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
            ],
            p=1.0,
        ),
        A.D4(p=1.0),
        A.Affine(rotate=(-45, 45), shear=(-8, 8), border_mode=cv2.BORDER_REFLECT_101, p=0.5),
        A.OneOf(
            [
                A.Downscale(
                    scale_range=(0.4, 0.9),
                    interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR},
                ),
                A.GaussianBlur(sigma_limit=(0.3, 1.2), blur_limit=0),
                A.Sharpen(alpha=(0.1, 0.5), lightness=(0.9, 1.1)),
                A.ImageCompression(quality_range=(50, 95)),
            ],
            p=0.7,
        ),
        A.ColorJitter(
            brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.25), hue=(-0.03, 0.03), p=0.8
        ),
        A.CoarseDropout(
            num_holes_range=(1, 3), hole_height_range=(0.08, 0.2), hole_width_range=(0.08, 0.2), p=0.25
        ),
    ]


def published_levels(class_counts: Mapping[str, int]) -> dict[str, int]:
    """Augmentation level of each class in the published system, from r = largest count / count.

    r < 2 gives 0, r < 6 gives 1, r < 15 gives 2, else 3; MEL, where there is such a class, has at least 2.
    """
    largest = max(class_counts.values())
    levels = {}
    for name, count in class_counts.items():
        ratio = largest / count if count else float("inf")
        levels[name] = 0 if ratio < 2 else 1 if ratio < 6 else 2 if ratio < 15 else 3
    if (melanoma := "MEL") in levels:
        levels[melanoma] = max(levels[melanoma], 2)
    return levels


def _published(level: int, size_px: int) -> list[Any]:
    """The calls of the published system. They imply two things that its description does not mention: areas
    left empty by a rotation are black, and `translate_percent=0.05` always shifts by 5 % to the right and
    down instead of by up to 5 % in any direction (albumentations 2 treats a single number as a fixed value).
    """
    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
    by_level: dict[int, list[Any]] = {
        0: [],
        1: [*flips, A.Rotate((-30, 30), p=0.6)],
        2: [
            *flips,
            A.Rotate((-90, 90), p=0.7),
            A.Affine(translate_percent={"x": 0.05, "y": 0.05}, scale=(0.9, 1.1), p=0.4),
        ],
        3: [
            A.Affine(translate_percent={"x": 0.1, "y": 0.1}, scale=(0.9, 1.1), rotate=(-20, 20), p=0.5),
            *flips,
            A.Rotate((-180, 180), p=0.7),
            A.GaussNoise(std_range=(0.02, 0.10), p=0.3),
            A.MotionBlur(blur_limit=3, p=0.2),
            A.MedianBlur(blur_limit=3, p=0.1),
            A.ImageCompression(quality_range=(75, 100), p=0.3),
        ],
    }
    return [A.Resize(size_px, size_px), *by_level[level]]
